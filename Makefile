# Everything a developer or a new user runs. `make` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON := .venv/bin/python
TORCH_VERSION := 2.13.0
# Images of Python set it; every process that the tests start would compile the platform anew.
unexport PYTHONDONTWRITEBYTECODE
SOURCES := $(shell find sprocket/src jig/src -name '*.py') machineshop/hatch_build.py $(wildcard */pyproject.toml)

.PHONY: help setup torch demo test drills check format bench lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: .venv/.ready ## make .venv with jig and machineshop in its bin

# The lock says names, versions and hashes; the three distributions are linked, so edits take effect at once.
.venv/.ready: requirements.lock $(SOURCES)
	@echo "Setting up .venv, which takes seconds, or minutes over a slow line" >&2
	@uv=$$(scripts/find-uv); \
	[ -x $(PYTHON) ] || $$uv venv --quiet --python '>=3.11' .venv; \
	$$uv pip install --quiet --compile-bytecode --require-hashes --python $(PYTHON) -r requirements.lock; \
	$$uv pip install --quiet --no-deps --python $(PYTHON) -e sprocket -e jig -e machineshop
	@touch $@

# What only the checks, the tests and the benchmarks need: linters, real clients, a real model.
.venv/.ready-dev: .venv/.ready requirements-dev.lock
	@echo "Adding what the checks and tests need to .venv" >&2
	@$$(scripts/find-uv) pip install --quiet --compile-bytecode --require-hashes --python $(PYTHON) -r requirements-dev.lock
	@touch $@

# Three quarters of a gigabyte that only the tests of several ranks want: they put it on PYTHONPATH, or are skipped.
torch: .venv-torch/.ready ## make .venv-torch with PyTorch, for the tests of models on several GPUs
.venv-torch/.ready: | .venv/.ready
	@rm -rf .venv-torch
	@$(PYTHON) -m venv .venv-torch
	@.venv-torch/bin/python -m pip install --quiet --no-compile torch==$(TORCH_VERSION)
	@touch $@

demo: setup ## deploy examples/hello-world on a throw-away platform, submit a job, print its result
	@$(PYTHON) scripts/demo.py

test: check ## lint, types, layers and the whole test suite
	@scripts/test

drills: .venv/.ready-dev ## break things under load, longer than `test` does, and count what is left
	@MACHINESHOP_DRILL_JOBS=20000 MACHINESHOP_DRILL_ROLLOUTS=20 $(PYTHON) -m pytest tests/drills

# Side by side, once what they share, the types of the sources, is known.
define MORE_TYPES
MYPYPATH=tests:machineshop/tests .venv/bin/mypy tests
MYPYPATH=machineshop/tests .venv/bin/mypy machineshop/tests
.venv/bin/mypy --python-version 3.10 sprocket/src
MYPYPATH=benchmarks .venv/bin/mypy benchmarks
MYPYPATH=jig/tests .venv/bin/mypy jig/tests
MYPYPATH=sprocket/tests .venv/bin/mypy sprocket/tests
endef
export MORE_TYPES

check: .venv/.ready-dev ## lint, types and import layers alone
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy sprocket/src jig/src machineshop/src scripts
	@tr '\n' '\0' <<< "$$MORE_TYPES" | xargs -0 -n 1 -P 2 sh -c
	@.venv/bin/lint-imports --no-cache

format: .venv/.ready-dev ## rewrite the code as the linter wants it
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

bench: .venv/.ready-dev ## run every benchmark beside its peers
	@for file in benchmarks/[a-z]*.py; do $(PYTHON) $$file; done

lock: ## resolve the dependencies anew into the two lock files
	@uv=$$(scripts/find-uv); \
	$$uv lock --quiet --upgrade; \
	export="$$uv export --quiet --all-packages --no-emit-workspace --no-header --no-annotate"; \
	$$export --no-default-groups > requirements.lock; \
	$$export --all-groups > requirements-dev.lock

clean: ## remove what setup and the tests made
	rm -rf .venv .venv-torch .uv .mypy_cache .ruff_cache .pytest_cache .hypothesis machineshop/src/machineshop/wheels
