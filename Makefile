# Everything runs in a virtual environment of its own, .venv, made on first use.
# `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
# Test processes. The suite is safe to run in parallel.
WORKERS ?= 2

VENV := .venv
RUN := $(VENV)/bin/python
# What an installation builds; an editable one puts the result beside the sources.
BUILT_FROM := pyproject.toml setup.py $(wildcard qnodeos/engine/csrc/*.[ch])
PIP := $(RUN) -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: help demo test lint bench bench-peers clean

help:
	@echo "make demo    install, and run a simulated delegated quantum computation on two nodes"
	@echo "make test    install with the development tools, and run all tests"
	@echo "make lint    style, types and layers"
	@echo "make bench   benchmarks"
	@echo "make bench-peers  the same programs here and on SimulaQron, installed in .venv-peers"
	@echo "make clean   remove caches and build products (not .venv: remove that by hand)"
	@echo
	@echo "Another interpreter: make PYTHON=python3.12 demo (before .venv exists)"

demo: $(VENV)/.installed
	$(VENV)/bin/qnodeos demo

test: $(VENV)/.installed-dev
	$(RUN) -m pytest -n $(WORKERS)

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/.installed-dev
	$(RUN) -m benchmarks

bench-peers: $(VENV)/.installed-dev
	$(RUN) -m benchmarks peers

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache .coverage
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps make a second run immediate, and possible without a network.

$(VENV)/.installed: $(BUILT_FROM) constraints.txt | $(RUN)
	@echo "Installing qnodeos and its dependencies in $(VENV) (some minutes the first time)"
	$(PIP) --editable '.[lab]'
	@touch $@

$(VENV)/.installed-dev: $(BUILT_FROM) constraints.txt | $(RUN)
	@echo "Installing qnodeos and the development tools in $(VENV) (some minutes the first time)"
	$(PIP) --editable '.[dev]'
	@touch $(VENV)/.installed $@

$(RUN):
	@command -v $(PYTHON) > /dev/null || { \
		echo "There is no $(PYTHON) here. Install Python 3.11 or newer, or name one:" \
			"make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "qnodeos needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version)." \
			"If you have a newer one, name it: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2> /dev/null || { \
		echo "$(PYTHON) cannot make virtual environments: its modules venv and ensurepip are" \
			"missing. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
