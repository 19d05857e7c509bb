# The two commands to know: `make demo` and `make test`. Each installs what it needs.
.DEFAULT_GOAL := help
.PHONY: help setup setup-tests demo test test-fast check format bench matrix vendor lock clean
VENV := .venv/bin

help:  ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## Install what is missing: QEMU, .venv, the locked dependencies
	@scripts/setup.sh

setup-tests:
	@scripts/setup.sh tests

demo: setup  ## Boot a real device and look into it from outside
	@$(VENV)/yamori demo

test: setup-tests  ## All tests; those that boot guests take minutes
	@$(VENV)/python -m pytest

test-fast: setup-tests  ## The tests that need no QEMU
	@$(VENV)/python -m pytest -m "not guest"

check: setup-tests  ## Format, lint, types, tests
	@$(VENV)/ruff format --check .
	@$(VENV)/ruff check .
	@$(VENV)/mypy
	@$(VENV)/python -m pytest

format: setup  ## Format the code and mend what can be mended
	@$(VENV)/ruff format .
	@$(VENV)/ruff check --fix .

bench: setup  ## Measure, on real devices: print tables, write docs/benchmarks.*
	@grep -v '^#' benchmarks/requirements.txt \
	    | xargs -n 1 $(VENV)/python -m pip install --quiet --disable-pip-version-check \
	    || echo "bench: what could not be installed is skipped" >&2
	@$(VENV)/python -m benchmarks

matrix: setup  ## Boot every stock kernel of the matrix and compare: CELLS='arm64-* riscv64-*' for some
	@$(VENV)/python -m matrix $(CELLS)

vendor:  ## Build small kernels as vendors do, for the matrix: half an hour (KERNELS='arm64-39bit' for one)
	@matrix/vendor/build.sh $(KERNELS)

lock: setup  ## Resolve the dependencies anew
	@$(VENV)/python -m pip install --quiet uv
	@$(VENV)/uv pip compile --quiet --universal --extra all --group dev --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --no-header --no-annotate -o requirements.lock pyproject.toml

clean:  ## Remove what the above made here
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
