# The project's commands; each installs first when needed. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: help install demo test test-fast lint format clean
.DEFAULT_GOAL := help

help:  ## List the commands
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED)  ## Install the locked versions and this project into .venv

$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 13), "Python 3.11 to 3.13 is needed (make PYTHON=python3.12 ...), this is " + sys.version.split()[0]'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(INSTALLED)

DEMO := runs/demo
SMALL := $(foreach method,padim feature,$(foreach texture,brick grass gravel,$(method)/$(texture)))

demo: $(INSTALLED)  ## Compare three methods on photographs of textures (CPU, under eight minutes)
	@set -e; for run in $(SMALL); do \
		CATEGORY=$${run#*/} $(BIN)/lightning fit --config experiments/$${run%/*}_synthetic.yaml --run_dir $(DEMO)/$$run $(ARGS); \
	done
	$(BIN)/lightning fit --config experiments/demo.yaml --run_dir $(DEMO)/ddad/brick $(ARGS)
	$(BIN)/lightning summarize $(DEMO)

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto --dist=loadfile

test: lint  ## Lint, check types and run the tests
	$(PYTEST) $(ARGS)

test-fast: $(INSTALLED)  ## Run the tests that need no whole run
	$(PYTEST) -m "not whole" $(ARGS)

lint: $(INSTALLED)  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the environment and caches (runs stay)
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache *.egg-info build
