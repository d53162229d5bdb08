# Every target makes the environment that it needs; a second run finds it ready.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.leaktight-setup
# bounding is single-threaded arithmetic in many tests at once
export OMP_NUM_THREADS ?= 1

.PHONY: help setup demo test test-all mutants docs check clean

help:  ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

setup: $(STAMP)  ## make the virtual environment

# auto_LiRPA 0.3 pins an old torch that it does not need: it goes in without its dependencies, which follow by name
$(STAMP): pyproject.toml
	@echo "installing into $(VENV), PyTorch included: about a minute"
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --editable '.[dev]' 'torch<2.14'
	$(RUN) -m pip install --quiet --no-deps 'auto_LiRPA==0.3'
	$(RUN) -m pip install --quiet packaging appdirs pyyaml ninja tqdm
	touch $(STAMP)

demo: setup  ## prove and refute something on the bundled network
	$(RUN) -m leaktight demo

test: setup  ## the tests that belong to every change
	$(RUN) -m pytest -n 2

test-all: setup  ## also the slow ones
	$(RUN) -m pytest -n 2 -m 'slow or not slow'

mutants: setup  ## break each soundness rule in a copy and say which test notices (half an hour)
	$(RUN) scripts/mutants.py

docs: setup  ## build the documentation site in site/, strictly
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet
	@echo "the site is in site/index.html"

check: setup  ## lint, types, import rules
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m mypy scripts
	$(RUN) -m pytest tests/test_architecture.py

clean:  ## remove what setup and the tools made
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
