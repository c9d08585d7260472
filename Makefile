# make demo        a Swahili intent classifier from five examples a class
# make test        the tests
# make quality     ruff with its security rules, formatting, types, known vulnerabilities of the locked versions
# make fuzz        20,000 mutated files for every loader
# make bench       the measurements of results/*.json, on the data sets in ../shared/data
# make bench-meta  the part of them that compares the shipped checkpoint with the frozen encoder
# make bench-maml  tasks a second and memory of MAML, ours and other packages'
# make lock        write requirements.lock anew from pyproject.toml (then run the tests)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
TORCH := torch==2.13.0

.PHONY: demo test quality audit fuzz lock bench bench-maml bench-meta clean

demo: $(VENV)/.installed
	$(BIN)/nlpmeta adapt --lang sw --shots 5

test: $(VENV)/.installed
	$(BIN)/python -m pytest

quality: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/audit.py

audit: $(VENV)/.installed
	$(BIN)/python tools/audit.py

fuzz: $(VENV)/.installed
	$(BIN)/python benchmarks/fuzz_loaders.py

# Each step leaves a stamp and runs again only when what it read has changed.
$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	touch $@

# torch goes in by itself and first: asked for by another package it would bring gigabytes for a GPU.
$(VENV)/.locked: requirements.lock $(VENV)/.created
	@echo "Installing the locked versions into $(VENV) (once; a few minutes) ..."
	$(PIP) install $(TORCH)
	$(PIP) install -r requirements.lock
	touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.locked
	$(PIP) install --no-deps --editable .
	touch $@

# Long measurements, by hand: minutes to an hour on two cores; results/*.json are written by them.
bench: $(VENV)/.installed bench-meta
	$(BIN)/python benchmarks/frozen.py

bench-maml: $(VENV)/.installed
	$(BIN)/python benchmarks/maml_speed.py

bench-meta: $(VENV)/.installed
	$(BIN)/python benchmarks/meta.py

lock:
	$(PYTHON) -m venv --clear .lock-venv
	.lock-venv/bin/python -m pip --quiet install $(TORCH)
	.lock-venv/bin/python -m pip --quiet install --editable '.[offline,test,dev]'
	echo "# Every version that was tested together, with Python 3.11; written by 'make lock'." > requirements.lock
	.lock-venv/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' >> requirements.lock
	rm -rf .lock-venv

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
