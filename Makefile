# The commands of the project; `make` alone prints them.
# The first Python that is new enough and can make a virtual environment; a shim may stand for one that is not there.
PYTHON ?= $(shell for one in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$one -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$one && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
# pip passes on what setuptools says to packagers of any editable install; it would only alarm.
PIP := PYTHONWARNINGS=ignore $(BIN)/pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help up test quick long clients search soak bench check fmt docs lock clean

# Three processes more than there are cores, because tests with a running stack wait a lot. Without bytecode each of the
# hundreds of programs that they start would compile the product anew.
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --durations=15
WORKERS ?= $(shell echo $$((3 + $$(getconf _NPROCESSORS_ONLN))))

help: ## Print this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

up: $(VENV)/.installed ## Run everything on this machine: API :8080 (PORT), Flower :5555 (FLOWER_PORT)
	@exec $(BIN)/python -m devstack

test: $(VENV)/.installed-dev ## Run the tests; `make test ARGS="-k name"` passes options to pytest
	@$(PYTEST) -n $(WORKERS) -m "not long" $(ARGS)

quick: $(VENV)/.installed-dev ## Run the tests that are short and need no running stack
	@$(PYTEST) -n $(WORKERS) --quick $(ARGS)

long: $(VENV)/.installed-dev ## Run the long tests that `make test` leaves out; CI runs both
	@$(PYTEST) -n $(WORKERS) -m long $(ARGS)

clients: $(VENV)/.installed-dev ## Run all that the peer's SDK and CLI are tried with
	@CLIENTS=all $(PYTEST) -n $(WORKERS) tests/compat $(ARGS)

search: $(VENV)/.installed-dev ## Run the searches through requests and interleavings in their long form
	@SEARCH=1 $(PYTEST) -n $(WORKERS) tests/access/test_schema.py tests/cleanup/test_state_machine.py \
		tests/services/test_writers_against_delete.py tests/access/test_history.py $(ARGS)

soak: $(VENV)/.installed-dev ## Run everything under one fault after the other for 20 minutes (SOAK_SECONDS, SOAK_SEED)
	@SOAK_SECONDS=$${SOAK_SECONDS:-1200} $(PYTEST) -s -n 0 tests/soak $(ARGS)

bench: $(VENV)/.installed-dev ## Measure everything in a quarter of an hour; ONLY=requests,lists for parts, BENCH_FULL=1 for 10 M rows
	@$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY)) $(if $(BENCH_FULL),--scale full)

check: $(VENV)/.installed-dev ## Formatting, lint, types, import contracts, tests: what a change must pass
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy --strict
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory test

fmt: $(VENV)/.installed-dev ## Format the code and mend what ruff can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: $(VENV)/.installed-dev ## Write docs/openapi.json anew
	@$(BIN)/python -m app.cli openapi > docs/openapi.json

# For all platforms and Pythons at once; pins stay as they are unless ARGS=--upgrade.
LOCK = $(BIN)/uv pip compile --universal --generate-hashes --no-header --no-annotate --quiet $(ARGS) pyproject.toml
lock: $(VENV)/.installed-dev ## Write requirements/ anew from pyproject.toml; `make lock ARGS=--upgrade` takes the newest
	$(LOCK) --extra dev -o requirements/dev.txt
	$(LOCK) --extra build --extra devstack -c requirements/dev.txt -o requirements/devstack.txt
	$(LOCK) --extra build --extra kubernetes --extra otel --extra s3 -c requirements/dev.txt -o requirements/image.txt

clean: ## Delete what was installed and cached; your data in .data stay
	rm -rf $(VENV) .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp says that the environment fits pyproject.toml and its lock, so that the next run starts at once.
$(VENV)/.installed: pyproject.toml requirements/devstack.txt
	@python="$(PYTHON)"; test -n "$$python" || { \
		echo "make: Python 3.11 or newer with venv is needed (Debian: python3-venv); give its path as PYTHON=…" >&2; exit 1; }; \
	echo "Installing into $(VENV) (once, under a minute) …"; \
	test -x $(BIN)/pip || "$$python" -m venv --clear $(VENV)
	@$(PIP) install --quiet --no-deps --require-hashes -r requirements/devstack.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements/dev.txt
	@echo "Installing the tools for tests and checks into $(VENV) …"
	@$(PIP) install --quiet --no-deps --require-hashes -r requirements/dev.txt
	@touch $@
