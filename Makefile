PYTHON ?= python3
PORT ?= 8080
FAULTS ?= tests/faults
BIN := .venv/bin
OPENAPI := $(BIN)/python manage.py spectacular --validate --fail-on-warn
# The models of asyncapi3 warn about names of their own fields.
ASYNCAPI := $(BIN)/python -W "ignore:Field name" manage.py asyncapi --validate
KOREAN := $(patsubst %.po,%.mo,$(wildcard commerce/*locale/ko/LC_MESSAGES/*.po))
# --syntax-only, because the token file of the scrape config exists only in compose's container.
PROMTOOL := promtool check config --syntax-only deploy/prometheus/prometheus.yml && \
  promtool check rules deploy/prometheus/alerts.yml && promtool test rules deploy/prometheus/alerts_test.yml
# Releases of Kubernetes against whose schemas the manifests are checked. tests/repository/test_kubernetes.py checks the
# resources of KEDA, which are not among these schemas.
KUBERNETES := 1.31 1.32 1.33 1.34 1.35 1.36 1.37
# uv and pip install only files whose hashes are in pins/. With uv, .venv needs no pip, whose installation takes seconds.
UV := $(shell command -v uv)
INSTALL := $(if $(UV),{ test -x $(BIN)/python || $(PYTHON) -m venv --without-pip .venv; } && \
  $(UV) pip install --require-hashes --python $(BIN)/python,{ $(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv .venv; } && \
  $(BIN)/python -m pip install --disable-pip-version-check --require-hashes)
# The requirements for which `make pins` writes the hashes of all files.
REQUIREMENTS := requirements.txt requirements-run.txt requirements-dev.txt deploy/requirements-image.txt deploy/requirements-build.txt
RENEW := { echo "The document in docs/ differs from the code's. If the change is intended, run: make contracts"; exit 1; }

.PHONY: help run reset test lint contracts pins audit kafka test-kafka test-faults test-browser soak bench
export PORT

# The first target is what `make` alone does: it prints the texts behind `##`.
help: ## print this list
	@awk -F ':.* ## ' '/^[a-z-]+:.* ## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# `exec` leaves no shell between `make` and a program that starts servers, because the program follows its parent's end.
run: $(KOREAN) ## start PostgreSQL, Kafka, web, consumer, relay, worker, watcher and provider on PORT (8080), until Ctrl-C
	@exec $(BIN)/python -m commerce.devserver.run

# YES=1 confirms the question without a terminal.
reset: .venv/run-installed ## delete the data of earlier runs, after a question; YES=1 does not ask
	@exec $(BIN)/python -m commerce.devserver.reset

test: .venv/installed ## run the whole suite on servers of its own
	exec $(BIN)/python -m pytest

test-kafka: .venv/installed ## run the broker-facing tests on Apache Kafka; needs Java 17 and Maven
	exec $(BIN)/python -m pytest --broker=apache -m kafka

test-faults: .venv/installed ## run the fault tests, which break Apache Kafka and PostgreSQL on purpose
	exec $(BIN)/python -m pytest --broker=proxied $(FAULTS)

test-browser: .venv/installed ## run the tests in Chromium
	exec $(BIN)/python -m pytest tests/browser

soak: .venv/installed ## place orders for SOAK_MINUTES (20) with a fault every few seconds
	@exec $(BIN)/python -m pytest --broker=proxied -q tests/faults/soak.py

bench: .venv/installed ## measure the speed beside other designs, 30 to 40 minutes; ONLY=name measures one row
	@exec $(BIN)/python -m benchmarks --only "$(ONLY)"

kafka: ## start a single-node Apache Kafka 4 in the foreground; needs Java 17 and Maven
	@exec $(PYTHON) -I commerce/devserver/lifeline.py deploy/kafka/start

lint contracts: export DJANGO_DEBUG = true
# The published documents show the defaults.
lint contracts: export KAFKA_TOPIC_PARTITIONS = 3
lint contracts: export KAFKA_TOPIC_REPLICATION = 1
lint: .venv/installed ## check style, types, imports, migrations, manifests and the published documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	$(BIN)/lint-imports
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml
	@mkdir -p var/kubernetes
	@for overlay in trial production; do \
	  $(BIN)/kubectl kustomize deploy/kubernetes/overlays/$$overlay > var/kubernetes/$$overlay.yaml && \
	  $(BIN)/kubernetes-validate --strict --quiet --no-warn $(KUBERNETES:%=-k %) var/kubernetes/$$overlay.yaml || exit 1; done
	@if command -v promtool > /dev/null; then $(PROMTOOL); else \
	  echo "== deploy/prometheus is not checked: promtool is missing (Debian package prometheus)" >&2; fi
	$(BIN)/python -W "ignore:Got an error checking" manage.py makemigrations --check --dry-run
	@$(OPENAPI) | diff -u docs/openapi.yaml - || $(RENEW)
	@$(ASYNCAPI) | diff -u docs/asyncapi.yaml - || $(RENEW)

contracts: .venv/installed ## renew docs/openapi.yaml and docs/asyncapi.yaml from the code
	$(OPENAPI) --file docs/openapi.yaml
	$(ASYNCAPI) --file docs/asyncapi.yaml

# With uv, because pip cannot write the hashes of the files for all platforms.
pins: ## renew pins/ after a change of requirements or constraints
	@test -x var/uv/bin/uv || { $(PYTHON) -m venv var/uv && var/uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9; }
	@mkdir -p pins
	@for file in $(REQUIREMENTS); do \
	  var/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    --output-file pins/$$(basename $$file) $$file || exit 1; done

audit: .venv/installed ## ask PyPI for known vulnerabilities of the pinned packages
	@$(BIN)/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt || { \
	  echo "== The output above lists vulnerabilities, or an error if https://pypi.org cannot be reached" >&2; exit 1; }

# With Babel, because a fresh machine does not have gettext's msgfmt.
%.mo: %.po .venv/run-installed
	@$(BIN)/pybabel --quiet compile --input-file $< --output-file $@ --locale ko

.venv/run-installed: pins/requirements-run.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	@echo "== Installing the packages to run into .venv (290 MB, once)"
	@$(INSTALL) -r pins/requirements-run.txt
	@touch $@

# The tools for tests and lint are installed in addition: `make run` needs none of them, and no target undoes the other.
.venv/installed: .venv/run-installed pins/requirements-dev.txt
	@echo "== Installing the packages for tests and lint into .venv (690 MB, once)"
	@$(INSTALL) -r pins/requirements-dev.txt
	@touch $@
