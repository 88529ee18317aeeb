# Everything happens in .venv. Each target sets it up by itself, and again only when pyproject.toml or
# constraints.txt changed. PYTHON=python3.12 chooses the interpreter of a new .venv.

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

# The first that is Python 3.11 or newer and can make a virtual environment.
PYTHON ?= $(firstword $(foreach python,python3 python3.13 python3.12 python3.11,$(shell $(python) -c \
	'import ensurepip, sys, venv; sys.version_info >= (3, 11) and print("$(python)")' 2>/dev/null)))

# The contract that others rely on: the last release, or before the first one the last commit.
PUBLISHED = $(shell git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || echo HEAD)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo venv test lint types imports check-protos unit e2e docker-test fuzz chaos bench audit format protos reference lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.service ## Train with and without dropout and batch norm and compare; MNIST=folder does it on MNIST
	@$(BIN)/dropnorm demo $(if $(MNIST),--mnist "$(MNIST)")

venv: $(VENV)/.dev ## Set up .venv with everything that a developer needs

test: lint types imports check-protos unit e2e ## Run every check and every test, as CI does

lint: $(VENV)/.dev ## Check style and likely mistakes (ruff), and that the README's reference is current
	@echo "== lint"
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/python docs/reference.py --check

types: $(VENV)/.dev ## Check types (mypy)
	@echo "== types"
	@$(BIN)/mypy

imports: $(VENV)/.dev ## Check who imports whom (import-linter)
	@echo "== imports"
	@$(BIN)/lint-imports --no-logo

check-protos: $(VENV)/.dev ## Check the contract's style, its compatibility, and that the generated code is current
	@echo "== protos"
	@$(BIN)/buf format --diff --exit-code protos --path protos/dropnorm
	@$(BIN)/buf lint protos
	@if git ls-tree -r --name-only $(PUBLISHED) protos/dropnorm | grep -q . ; then \
		published=$$(mktemp -d) && trap 'rm -rf "$$published"' EXIT && \
		git archive $(PUBLISHED) protos | tar -x -C "$$published" && \
		$(BIN)/buf breaking protos --against "$$published/protos"; \
	else echo "No contract in $(PUBLISHED) to be compatible with."; fi
	@$(BIN)/python protos/generate.py --check

unit: $(VENV)/.dev ## Test the parts
	@echo "== unit tests"
	@$(BIN)/pytest -m "not e2e and not docker" --numprocesses 2 --dist worksteal

# Most of the time a test waits, for a restart or for a time that has to pass. The files share servers within them.
e2e: $(VENV)/.dev ## Test the whole: a real server, real workers
	@echo "== end-to-end tests"
	@$(BIN)/pytest -m e2e --numprocesses 2 --dist loadfile

docker-test: $(VENV)/.dev ## Build the images and test them in containers; skips where no Docker engine answers
	@echo "== docker tests"
	@$(BIN)/pytest -m docker

fuzz: $(VENV)/.dev ## Send made-up requests for some minutes, others in each run, and stop made-up trainings; EXAMPLES=n for each test
	@DROPNORM_TEST_FUZZ_EXAMPLES=$(or $(EXAMPLES),500) $(BIN)/pytest --timeout 1800 tests/e2e/fuzz tests/service/training/test_random_resumption.py

# One round on each store, half of the jobs in each.
chaos: $(VENV)/.dev ## Let jobs pass through kills, outages and restarts, and check every promise; SEED=, JOBS= repeat a run
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(JOBS),--jobs $(JOBS))

bench: $(VENV)/.dev ## Measure
	@$(BIN)/python -m tests.benchmarks

audit: ## Ask the advisory databases about every pinned dependency; needs the internet
	@$(PYTHON) -m venv --clear .venv-audit
	@.venv-audit/bin/python $(PIP_INSTALL) pip-audit
	@.venv-audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --desc
	@rm -rf .venv-audit

format: $(VENV)/.dev ## Format the code and the protos
	@$(BIN)/ruff check --fix --exit-zero --quiet .
	@$(BIN)/ruff format .
	@$(BIN)/buf format --write protos --path protos/dropnorm

protos: $(VENV)/.dev ## Generate client/dropnorm/v1 from the protos
	@$(BIN)/python protos/generate.py

reference: $(VENV)/.dev ## Write the README's reference tables from the models
	@$(BIN)/python docs/reference.py

# torch keeps its version: a new one is a decision of its own, and asked for by hand in constraints.txt.
# Its CUDA libraries are left out: torch itself pins them, other builds of it have none.
lock: ## Write constraints.txt anew with the newest versions that pyproject.toml admits
	@$(PYTHON) -m venv --clear .venv-lock
	@grep '^torch==' constraints.txt > .venv-lock/torch.txt
	@.venv-lock/bin/python $(PIP_INSTALL) -c .venv-lock/torch.txt '.[dev]'
	@{ grep '^#' constraints.txt; .venv-lock/bin/python -m pip freeze --exclude dropnorm \
		| grep -v -E '^(cuda|nvidia|triton)' | sed 's/+[a-z0-9]*$$//'; } > .venv-lock/constraints.txt
	@mv .venv-lock/constraints.txt constraints.txt
	@rm -rf .venv-lock

clean: ## Remove .venv, caches and build results
	@rm -rf .venv .venv-* build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find client protos service tests -name __pycache__ -type d -prune -exec rm -rf {} +

# After an upgrade of Python the link to it may dangle; then what was installed does not count.
$(shell test -x $(BIN)/python || rm -f $(VENV)/.service $(VENV)/.dev)

$(BIN)/python:
	@test -n "$(PYTHON)" || { \
		echo "dropnorm needs Python 3.11 or newer with its venv module, and found none." >&2; \
		echo "Install it (on Debian and Ubuntu: apt install python3 python3-venv)," >&2; \
		echo "or name one: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)

$(VENV)/.service: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing dropnorm[service] into $(VENV); torch is large, so the first time takes minutes."
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[service]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing dropnorm[dev] into $(VENV); torch is large, so the first time takes minutes."
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.service
