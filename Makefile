# make demo: set up and train on rendered flowers.   make test: set up and run every check.
# make torture: every promise of docs/reliability.md at full count, within an hour; stopped, it goes on.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test gpu-test torture sbom clean

demo: $(VENV)/installed
	$(BIN)/flowerfast train

test: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

gpu-test: $(VENV)/installed-test
	$(BIN)/python -m pytest -m gpu

torture: $(VENV)/installed-test
	$(BIN)/python -m benchmarks.torture; failed=$$?; $(BIN)/python benchmarks/tables.py; exit $$failed

# What is installed with flowerfast, as CycloneDX; the tool has a venv of its own, so that it does not list itself.
sbom: $(VENV)/installed
	$(PYTHON) -m venv $(VENV)/sbom
	$(VENV)/sbom/bin/python -m pip install -q "cyclonedx-bom>=7"
	$(VENV)/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-file sbom.json $(BIN)/python

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -e .
	touch $@

$(VENV)/installed-test: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -e ".[dev,dali]"
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
