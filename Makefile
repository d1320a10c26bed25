# Everything a person or CI does here. `make help` lists the targets.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
BENCH := .bench-venv/bin
SOURCES := src tests bench examples
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Tunesmith needs Python 3.11 or newer; say which with: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.setup: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.demo: $(VENV)/.setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt openai
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.setup $(VENV)/.demo

.bench-venv/.done: bench/requirements.txt
	$(PYTHON) -m venv .bench-venv
	$(BENCH)/python -m pip install --quiet --disable-pip-version-check -r bench/requirements.txt
	@touch $@

.PHONY: setup
setup: $(VENV)/.setup ## install Tunesmith into .venv
	@echo "Installed. Start it with: $(BIN)/tunesmith serve"

.PHONY: demo
demo: $(VENV)/.demo ## upload, train, compare base and tuned model, through the openai SDK
	$(BIN)/python examples/demo.py

.PHONY: check
check: $(VENV)/.dev ## format, lint, types, imports
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: test
test: $(VENV)/.dev ## the whole suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: format
format: $(VENV)/.dev ## format and mend what ruff can mend
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

.PHONY: bench-train
bench-train: $(VENV)/.dev .bench-venv/.done ## training speed beside TRL's (an hour)
	$(BIN)/python bench/train.py

.PHONY: bench-serve
bench-serve: $(VENV)/.dev ## the gateway's cost beside the bare engine
	$(BIN)/python bench/serve.py

.PHONY: bench-data
bench-data: $(VENV)/.dev ## speed and memory of checking a million rows, and of counting their tokens
	$(BIN)/python bench/data_structure.py
	$(BIN)/python bench/data_tokens.py

.PHONY: lock
lock: $(VENV)/.dev ## write constraints.txt from what is installed
	{ echo "# What CI runs with. Made by: make lock"; \
	  $(BIN)/python -m pip freeze --exclude-editable | grep -vE '^(torch|setuptools|pip)=='; } > constraints.txt

.PHONY: clean
clean: ## remove the environments and what the tools keep
	rm -rf $(VENV) .bench-venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
