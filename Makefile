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
# Those that pins/ has every file of, with its hash.
REQUIREMENTS := requirements.txt requirements-dev.txt deploy/requirements-image.txt deploy/requirements-build.txt
RENEW := { echo "The code does not publish what docs/ has. If that is meant, renew it: make contracts"; exit 1; }

.PHONY: run test lint contracts pins audit kafka test-kafka test-faults test-browser soak bench
export PORT

run: $(KOREAN).mo
	@exec $(BIN)/python -m commerce.run

test: $(KOREAN).mo
	$(BIN)/python -m pytest

test-kafka: .venv/installed
	$(BIN)/python -m pytest --broker=apache -m kafka

test-faults: .venv/installed
	$(BIN)/python -m pytest --broker=proxied tests/faults

test-browser: $(KOREAN).mo
	$(BIN)/python -m pytest tests/browser

soak: .venv/installed
	@$(BIN)/python -m pytest --broker=proxied -q tests/faults/soak.py

bench: .venv/installed
	@$(BIN)/python -m benchmarks --only "$(ONLY)"

kafka:
	@exec deploy/kafka/start

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
$(KOREAN).mo: $(KOREAN).po .venv/installed
	@$(BIN)/pybabel --quiet compile --input-file $(KOREAN).po --output-file $@ --locale ko

.venv/installed: pins/requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	@echo "== Creating .venv and installing the requirements (a minute, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r pins/requirements-dev.txt
	@touch $@
