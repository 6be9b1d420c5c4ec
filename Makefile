# Two commands: `make train` trains GPT-2 small with Muon, `make test` proves the rest.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# One thread per worker: the tests' models are too small for more.
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup train step results test test-more test-all test-cpu lint format

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11; try: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(VENV)/installed  ## make .venv with the pinned versions

train: setup  ## train GPT-2 small with Muon on the shipped text (some minutes)
	$(RUN) bench/train.py optimizer=muon model=gpt2

step: setup  ## time, memory and FLOPs of optimizer steps on a small GPT-2, no training
	$(RUN) bench/step.py

results: setup  ## tables, pictures and the page, from the committed records
	$(RUN) bench/report.py --published

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/mypy

test: lint  ## lint and tests (under 6 minutes)
	$(PYTEST)

test-more: setup  ## the types under Python 3.13, integrations, browser, documentation, more whole commands (under 20 minutes)
	$(VENV)/bin/mypy --python-version 3.13
	$(PYTEST) -m more

test-cpu: setup  ## the tests about numbers, on every instruction set the processor has
	$(RUN) scripts/cpu_matrix.py

test-all: lint test-cpu  ## the long matrices too, and both answers of `auto` (over an hour)
	$(PYTEST) -m 'long or more'
	BF16=faster $(PYTEST)
	BF16=slower $(PYTEST)
	$(RUN) scripts/architectures.py

format: setup  ## format the code
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .
