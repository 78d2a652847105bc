PYTHON ?= python3
PORT ?= 8080
BIN := .venv/bin
OPENAPI := $(BIN)/python manage.py spectacular --validate --fail-on-warn
# Its models warn about names of their own fields.
ASYNCAPI := $(BIN)/python -W "ignore:Field name" manage.py asyncapi --validate
KOREAN := commerce/locale/ko/LC_MESSAGES/django
# The token that the scrape config names is nowhere but in compose's container.
PROMTOOL := promtool check config --syntax-only deploy/prometheus/prometheus.yml && \
  promtool check rules deploy/prometheus/alerts.yml && promtool test rules deploy/prometheus/alerts_test.yml
# Both take only files whose hashes stand in pins/. uv needs no pip in .venv, which takes seconds to get there.
UV := $(shell command -v uv)
INSTALL := $(if $(UV),{ test -x $(BIN)/python || $(PYTHON) -m venv --without-pip .venv; } && \
  $(UV) pip install --require-hashes --python $(BIN)/python,{ $(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv .venv; } && \
  $(BIN)/python -m pip install --disable-pip-version-check --require-hashes)
# Those that pins/ has every file of, with its hash.
REQUIREMENTS := requirements.txt requirements-run.txt requirements-dev.txt deploy/requirements-image.txt deploy/requirements-build.txt
RENEW := { echo "The code does not publish what docs/ has. If that is meant, renew it: make contracts"; exit 1; }

.PHONY: run reset test lint contracts pins audit kafka test-kafka test-faults test-browser soak bench
export PORT

# What starts servers is called with exec, so that no shell stands between `make` and the program that follows it.
run: $(KOREAN).mo
	@exec $(BIN)/python -m commerce.devserver.run

# YES=1 answers its question where there is no terminal.
reset: .venv/run-installed
	@exec $(BIN)/python -m commerce.devserver.reset

test: .venv/installed $(KOREAN).mo
	exec $(BIN)/python -m pytest

test-kafka: .venv/installed
	exec $(BIN)/python -m pytest --broker=apache -m kafka

test-faults: .venv/installed
	exec $(BIN)/python -m pytest --broker=proxied tests/faults

test-browser: .venv/installed $(KOREAN).mo
	exec $(BIN)/python -m pytest tests/browser

soak: .venv/installed
	@exec $(BIN)/python -m pytest --broker=proxied -q tests/faults/soak.py

bench: .venv/installed
	@exec $(BIN)/python -m benchmarks --only "$(ONLY)"

kafka:
	@exec $(PYTHON) -I commerce/devserver/lifeline.py deploy/kafka/start

lint contracts: export DJANGO_DEBUG = true
# The published documents name what a fresh installation has.
lint contracts: export KAFKA_TOPIC_PARTITIONS = 3
lint contracts: export KAFKA_TOPIC_REPLICATION = 1
lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	$(BIN)/lint-imports
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml
	@if command -v promtool > /dev/null; then $(PROMTOOL); else \
	  echo "== deploy/prometheus is not checked: that takes promtool, of Debian's package prometheus" >&2; fi
	$(BIN)/python -W "ignore:Got an error checking" manage.py makemigrations --check --dry-run
	@$(OPENAPI) | diff -u docs/openapi.yaml - || $(RENEW)
	@$(ASYNCAPI) | diff -u docs/asyncapi.yaml - || $(RENEW)

contracts: .venv/installed
	$(OPENAPI) --file docs/openapi.yaml
	$(ASYNCAPI) --file docs/asyncapi.yaml

# Another tool than pip, which cannot write the hashes of every platform's files.
pins:
	@test -x var/uv/bin/uv || { $(PYTHON) -m venv var/uv && var/uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9; }
	@mkdir -p pins
	@for file in $(REQUIREMENTS); do \
	  var/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    --output-file pins/$$(basename $$file) $$file || exit 1; done

audit: .venv/installed
	@$(BIN)/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt || { \
	  echo "== Vulnerabilities are listed above. Anything else: https://pypi.org cannot be asked from here" >&2; exit 1; }

# Not with gettext's msgfmt, which a fresh machine does not have.
$(KOREAN).mo: $(KOREAN).po .venv/run-installed
	@$(BIN)/pybabel --quiet compile --input-file $(KOREAN).po --output-file $@ --locale ko

.venv/run-installed: pins/requirements-run.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	@echo "== Installing what running needs into .venv (290 MB, once)"
	@$(INSTALL) -r pins/requirements-run.txt
	@touch $@

# The tools of tests and lint come on top, so that `make run` installs none of them and neither target undoes the other.
.venv/installed: .venv/run-installed pins/requirements-dev.txt
	@echo "== Installing what tests and lint need as well (500 MB, once)"
	@$(INSTALL) -r pins/requirements-dev.txt
	@touch $@
