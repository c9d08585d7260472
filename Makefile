# make demo        a Swahili intent classifier from five examples a class
# make test        the tests
# make quality     ruff, formatting, types
# make bench       the measurements of results/*.json, on the data sets in ../shared/data
# make bench-meta  the part of them that compares the shipped checkpoint with the frozen encoder
# make bench-streams  streams of unseen classes and of an unseen language, the ablations where they were trained
# make lock        write requirements.lock anew from pyproject.toml (then run the tests)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
TORCH := torch==2.13.0

.PHONY: demo test quality lock bench bench-meta bench-streams clean

demo: $(VENV)/.installed
	$(BIN)/nlpmeta adapt --lang sw --shots 5

test: $(VENV)/.installed
	$(BIN)/python -m pytest

quality: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

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
bench: $(VENV)/.installed bench-meta bench-streams
	$(BIN)/python benchmarks/frozen.py

bench-meta: $(VENV)/.installed
	$(BIN)/python benchmarks/meta.py

bench-streams: $(VENV)/.installed
	$(BIN)/python benchmarks/streams.py

lock:
	$(PYTHON) -m venv --clear .lock-venv
	.lock-venv/bin/python -m pip --quiet install $(TORCH)
	.lock-venv/bin/python -m pip --quiet install --editable '.[offline,test,dev,plot]'
	echo "# Every version that was tested together, with Python 3.11; written by 'make lock'." > requirements.lock
	.lock-venv/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' >> requirements.lock
	rm -rf .lock-venv

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
