# Everything runs from a clean clone: each target first makes .venv and what it needs.
# Variables: WORKSPACE=dir and ARGS='...' (demo, test, bench), PYTHON=/path/to/python3.12 (setup).
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench clean

VENV := .venv
BIN := $(VENV)/bin
WORKSPACE ?= demo-workspace
ARGS ?=
PYTHON ?=
export PYTHON
# Where this is set, every process compiles every module it imports anew: seconds each, for torch alone.
unexport PYTHONDONTWRITEBYTECODE

# Not gpu_policy, which needs a GPU: python -m tests.benchmarks.gpu_policy
BENCHMARKS = $(filter-out gpu_policy,$(sort $(basename $(notdir $(shell grep -l '__main__' tests/benchmarks/*.py 2>/dev/null)))))

help:  ## say what each target does
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: $(VENV)/.python-stamp $(VENV)/.system-stamp  ## install into .venv (the other targets do it by themselves)

$(VENV)/.python-stamp: pyproject.toml constraints.txt tools/setup.sh
	@tools/setup.sh python
	@touch $@

$(VENV)/.system-stamp: $(VENV)/.python-stamp
	@tools/setup.sh system
	@touch $@

$(VENV)/.browser-stamp: $(VENV)/.python-stamp
	@tools/setup.sh browser
	@touch $@

demo: setup  ## the whole loop in simulation, about 15 minutes on 2 cores (ARGS=--quick: 4)
	@$(BIN)/recap demo --workspace "$(WORKSPACE)" $(ARGS)

test: setup $(VENV)/.browser-stamp  ## the tests, several at a time (ARGS='tests/pipeline -x' narrows them, ARGS='-n 0' one at a time)
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal $(ARGS)

check: $(VENV)/.python-stamp  ## ruff, mypy and the import rules, on all of our code
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/mypy -p tools
	@$(BIN)/lint-imports

bench: setup  ## every benchmark (ARGS=--quick: small ones)
	@failed=""; for name in $(BENCHMARKS); do \
	    echo "== $$name"; \
	    $(BIN)/python -m tests.benchmarks.$$name $(ARGS) || failed="$$failed $$name"; \
	done; \
	if [ -n "$$failed" ]; then echo "failed:$$failed" >&2; exit 1; fi

clean:  ## remove .venv and the tools' caches; recorded data stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage build dist
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
