# The commands of the project; `make` alone prints them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
# pip passes on what setuptools says to packagers of any editable install; it would only alarm.
PIP := PYTHONWARNINGS=ignore $(BIN)/pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help up test check fmt docs clean

help: ## Print this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-13s %s\n", $$1, $$2}'

up: $(VENV)/.installed ## Run everything on this machine: API :8080 (PORT), Flower :5555 (FLOWER_PORT)
	@exec $(BIN)/python -m devstack

test: $(VENV)/.installed-dev ## Run the tests; `make test ARGS="-k name"` passes options to pytest
	@$(BIN)/pytest $(ARGS)

check: $(VENV)/.installed-dev ## Formatting, lint, types, import contracts, tests: what a change must pass
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy --strict
	$(BIN)/lint-imports
	$(BIN)/pytest $(ARGS)

fmt: $(VENV)/.installed-dev ## Format the code and mend what ruff can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: $(VENV)/.installed-dev ## Write docs/openapi.json anew
	@$(BIN)/python -m app.cli openapi > docs/openapi.json

clean: ## Delete what was installed and cached; your data in .data stay
	rm -rf $(VENV) .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp says that the environment fits pyproject.toml and constraints.txt, so that the next run starts at once.
$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer is needed; give its path as PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make: Python 3.11 or newer is needed; give its path as PYTHON=…")'
	@echo "Installing into $(VENV) (once, under a minute) …"
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --quiet -c constraints.txt -e '.[devstack]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing the tools for tests and checks into $(VENV) …"
	@$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $@
