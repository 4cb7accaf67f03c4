# Each target sets up .venv by itself; `make help` lists them. Knobs:
#   PYTHON=/path/to/python3.12   the interpreter for a new .venv
#   PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"   the small CPU build of torch on Linux

.DEFAULT_GOAL := help
.NOTPARALLEL:
SHELL := /bin/sh
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt
PYTHON ?=
PIP_FLAGS ?=

DEMO ?= compare sample:flights --models unigram,ngram,lstm,gru,attention,linear_attention,s4d --budget 3s --seeds 3 --out .cache/demo --report report.html
PLAIN ?= not claim and not slow and not parity and not gpu and not browser
JOBS ?= 2
# One thread a worker and no busy waiting: a spinning pool costs milliseconds a launch when cores are shared.
TEST_ENV := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE TRITON_INTERPRET=1

.PHONY: help demo test test-all test-browser test-gpu lint format docs bench claims changelog clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

demo: .venv/base.stamp  ## compare seven models on a bundled event log, about a minute, and write report.html
	$(BIN)/seqloom $(DEMO)

test: .venv/dev.stamp  ## the plain tests
	$(TEST_ENV) $(BIN)/python -m pytest -n $(JOBS) -q -m "$(PLAIN)"

test-all: .venv/dev.stamp .venv/parity.stamp  ## every test that needs no accelerator and no browser
	$(TEST_ENV) $(BIN)/python -m pytest -n $(JOBS) -q -m "not gpu and not browser"

test-browser: .venv/dev.stamp  ## the report in a headless chromium, where there is one
	$(TEST_ENV) $(BIN)/python -m pytest -q -m browser

test-gpu: .venv/dev.stamp  ## the tests that need an accelerator
	TRITON_INTERPRET=0 $(BIN)/python -m pytest -q -m gpu

lint: .venv/dev.stamp  ## style, format, types, floors and spelling
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyrefly check --output-format=min-text
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell src tests docs changes benchmarks *.md *.toml Makefile

format: .venv/dev.stamp  ## mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: .venv/docs.stamp  ## the site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/dev.stamp  ## time everything that is green
	$(BIN)/python benchmarks/run.py

claims: .venv/base.stamp  ## run the claims whose results are stale
	$(PIP) $(PIP_FLAGS) -e ".[digits]"
	$(PIP) --no-deps sequenzo
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/seqloom claim all --stale --jobs $(JOBS)

changelog: .venv/dev.stamp  ## fold changes/ into CHANGELOG.md; VERSION=0.2.0
	$(BIN)/towncrier build --yes --version $(VERSION)

clean:  ## remove .venv, caches and outputs
	rm -rf .venv .cache .hypothesis .import_linter_cache .pytest_cache .ruff_cache build dist site report.html
	find . -type d -name __pycache__ -prune -exec rm -rf {} +

# A broken .venv (its interpreter is gone) does not exist for make, so it is made anew.
$(BIN)/python:
	@for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	    if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	        echo "setting up .venv with $$("$$python" --version), this takes some minutes"; \
	        exec "$$python" -m venv --clear .venv; \
	    fi; \
	done; \
	echo "seqloom needs Python 3.11 or newer with venv, and found none (looked for: $(or $(PYTHON),python3 python3.13 python3.12 python3.11)). Install it (Debian, Ubuntu: apt install python3 python3-venv) or name one: make PYTHON=/path/to/python3.12 ..." >&2; \
	exit 1

.venv/base.stamp: pyproject.toml constraints.txt $(BIN)/python
	$(PIP) $(PIP_FLAGS) -e .
	@touch $@

.venv/dev.stamp: pyproject.toml constraints.txt $(BIN)/python
	$(PIP) $(PIP_FLAGS) -e ".[dev]"
	@touch $@ .venv/base.stamp

.venv/docs.stamp: pyproject.toml constraints.txt $(BIN)/python
	$(PIP) $(PIP_FLAGS) -e ".[docs]"
	@touch $@ .venv/base.stamp

.venv/parity.stamp: pyproject.toml constraints.txt $(BIN)/python
	$(PIP) $(PIP_FLAGS) -e ".[parity]"
	@touch $@ .venv/base.stamp
