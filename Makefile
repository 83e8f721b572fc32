# Each target makes .venv and installs the pinned dependencies when they are not there yet.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CODE := mambapro train export calibration runtime benchmarks tests

.PHONY: demo test lint bench pin clean

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)  ## train, export, compare and stream on synthetic data (about 13 minutes on 2 cores)
	$(BIN)/python benchmarks/demo.py

test: $(INSTALLED)  ## all tests, with coverage
	$(BIN)/python -m pytest --cov --cov-report=term

lint: $(INSTALLED)  ## style and types
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy

bench: $(INSTALLED)  ## measure the demo anew and write the figures into README.md
	$(BIN)/python benchmarks/demo.py --fresh --record

pin: $(INSTALLED)  ## write the installed versions to constraints.txt
	@echo "# Exact versions that development, CI and the demo run with (Python 3.11). Made by 'make pin'." > constraints.txt
	$(BIN)/pip freeze --exclude-editable | sed 's/+cpu//' >> constraints.txt

clean:  ## remove everything that was made here but .venv
	rm -rf runs data build .coverage htmlcov .mypy_cache .ruff_cache .pytest_cache *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
