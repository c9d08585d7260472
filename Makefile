# make demo        a Swahili intent classifier from five examples per class
# make test        all tests: the default ones and, at the same time, the slow ones (two processes)
# make test-fast   the default ones alone, as plain pytest runs them
# make test-slow   the slow ones alone: documents run as written, kills, two processes, fuzzing, exports
# make quality     ruff with its security rules, formatting, types, known vulnerabilities of the locked versions
# make fuzz        20,000 mutated files for every loader, and 20,000 whose digests were recomputed; malformed requests
# make bench         our methods and other packages: results/bench, its report, the tables of README.md and docs/results.md
# make bench-tuning  plain LoRA and full fine-tuning added to the same results (hours)
# make bench-setfit  SetFit with its full schedule, where that takes minutes, added to the same results
# make bench-scaling adaptation time and memory against ways and shots: results/scaling
# make bench-meta    results/meta.json: the shipped checkpoint against the frozen encoder
# make bench-wide    results/wide.json: the same on held-out datasets of many kinds
# make bench-names   results/names.json: no examples, the names of the classes alone or with a sentence about each
# make bench-curves  results/curves.json, docs/curves.png: from no example to all of them (hours)
# make bench-kinds   results/kinds.json: short trainings without a kind of task, measured on that kind
# make bench-prior   results/class_prior.json: what it brings to say how often classes occur
# make bench-frozen  results/frozen.json: the baselines on the frozen encoder
# make bench-multilabel results/multilabel.json: several labels a text against one-vs-rest logistic regression
# make docs          docs/api.md and docs/cli.md from the code, and the site in build/site
# make bench-predict the cost of a prediction beyond the encoder's own forward pass
# make bench-speed   engines (torch, onnx, onnx-int8) and peers: cold starts, latency, throughput, accuracy: results/speed.json
# make bench-serve the server under 64 clients against the bulk rate, and taught while it answers
# make bench-bulk  texts a second of nlpmeta predict on many files: one worker against two, the same files from both
# make bench-maml    tasks per second and memory of MAML, ours and other packages'
# make bench-auto    how auto does on held-out tasks, and whether its self-assessment is correct
# make bench-uneven  imbalanced supports, and the gain from suggested labels
# make learn-auto    the priors of auto, relearned from auxiliary tasks (after a new checkpoint)
# make bench-streams streams of unseen classes and of an unseen language
# make bench-spam    spam streams with a new campaign: recovery, alarms, false alarms
# make bench-online  meta-training that goes on from the shipped checkpoint: 60 tasks of all kinds in three orders
# make bench-long    long texts: the first 128 tokens, the first 512, windows over more
# make bench-pairs   pairs of texts: do two questions ask for the same?
# make bench-folds   ProtAugment's folds, trained on each fold's own classes
# make bench-shift   robust weighting, task augmentation, raw text next to labels
# make house        size, rooms, import cycles and the path of a text, measured from the code itself
# make lock        rewrite requirements.lock from pyproject.toml (then run the tests)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
TORCH := torch==2.13.0

DATA_DIR ?= ../shared/data
SETS := injongo:swa,massive:sw,sib200:swh_Latn,banking77,clinc150,sms-spam
BENCH := $(BIN)/nlpmeta bench --data-dir $(DATA_DIR) --draws 3

SLOW_LOG := .test-slow.log

.PHONY: demo test test-fast test-slow quality house audit fuzz lock bench bench-tuning bench-setfit bench-scaling bench-maml bench-predict bench-speed bench-streams bench-auto learn-auto bench-meta bench-wide bench-names bench-curves bench-multilabel bench-frozen bench-spam bench-online bench-folds bench-shift bench-uneven bench-errors bench-serve bench-bulk bench-long bench-pairs bench-kinds bench-prior docs clean

demo: $(VENV)/.installed
	$(BIN)/nlpmeta adapt --lang sw --shots 5

# The two halves share nothing, so each takes a core; what the slow half said is shown when the other is done.
test: $(VENV)/.installed
	@echo "$(BIN)/python -m pytest -m slow > $(SLOW_LOG) &"
	@$(BIN)/python -m pytest -m slow > $(SLOW_LOG) 2>&1 & slow=$$!; \
	trap 'kill $$slow 2>/dev/null' INT TERM; \
	echo "$(BIN)/python -m pytest"; $(BIN)/python -m pytest; fast=$$?; \
	wait $$slow; code=$$?; \
	echo "$(BIN)/python -m pytest -m slow"; cat $(SLOW_LOG); \
	test $$fast -eq 0 && test $$code -eq 0

test-fast: $(VENV)/.installed
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

quality: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/audit.py

audit: $(VENV)/.installed
	$(BIN)/python tools/audit.py

house: $(VENV)/.installed
	$(BIN)/python tools/house.py

fuzz: $(VENV)/.installed
	$(BIN)/python benchmarks/fuzz_loaders.py
	$(BIN)/python benchmarks/fuzz_loaders.py --signed
	$(BIN)/python benchmarks/fuzz_serve.py

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

# The packages that are compared; nothing else needs them.
$(VENV)/.bench: requirements-bench.lock $(VENV)/.installed
	$(PIP) install -r requirements-bench.lock
	touch $@

# Long measurements, by hand. All of them can be stopped and started again: what is done is not done twice.
bench: $(VENV)/.bench
	$(BENCH) --data $(SETS) --shots 1,5,10 --peers adaptive-classifier,setfit --max-steps 25 --out results/bench
	$(BIN)/nlpmeta report results/bench --into docs/results.md
	$(BIN)/python tools/readme_table.py

bench-tuning: $(VENV)/.bench
	$(BENCH) --data $(SETS) --shots 1,5,10 --methods none --peers lora,fine-tuning --max-steps 200 --out results/bench

bench-setfit: $(VENV)/.bench
	$(BENCH) --data sib200:swh_Latn,sms-spam --shots 1,5,10 --methods none --peers setfit --max-steps 0 --out results/bench
	$(BENCH) --data injongo:swa --shots 1 --methods none --peers setfit --max-steps 0 --out results/bench

bench-scaling: $(VENV)/.bench
	$(BENCH) --scaling --data clinc150 --methods auto@default --peers setfit --max-steps 3 --out results/scaling
	$(BIN)/nlpmeta report results/scaling

bench-prior: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/class_prior.py --data-dir $(DATA_DIR)
	$(BIN)/python tools/tables.py class_prior

bench-frozen: $(VENV)/.installed
	$(BIN)/python benchmarks/frozen.py

bench-predict: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/predict_speed.py

# The peers of bench-speed, whose ONNX parts need other versions than ours.
.peers/.installed: requirements-peers.lock
	$(PYTHON) -m venv .peers
	.peers/bin/python -m pip --disable-pip-version-check -qq install $(TORCH)
	.peers/bin/python -m pip --disable-pip-version-check -qq install -r requirements-peers.lock
	touch $@

bench-speed: $(VENV)/.installed .peers/.installed
	$(BIN)/python benchmarks/speed.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/speed_accuracy.py --data-dir $(DATA_DIR) --peers-python .peers/bin/python
	$(BIN)/python benchmarks/speed_peers.py --peers-python .peers/bin/python

bench-maml: $(VENV)/.installed
	$(BIN)/python benchmarks/maml_speed.py

bench-meta: $(VENV)/.installed
	$(BIN)/python benchmarks/meta.py
	$(BIN)/python tools/tables.py meta

bench-wide: $(VENV)/.installed
	$(BIN)/python benchmarks/wide.py
	$(BIN)/python tools/tables.py wide

bench-names: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/names.py --data-dir $(DATA_DIR)
	$(BIN)/python tools/tables.py names

bench-curves: $(VENV)/.bench
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/curves.py --data-dir $(DATA_DIR)
	$(BIN)/python tools/tables.py curves

bench-kinds: $(VENV)/.installed
	$(BIN)/python benchmarks/kinds.py --data-dir $(DATA_DIR)

bench-multilabel: $(VENV)/.installed
	$(BIN)/python benchmarks/multilabel.py --data-dir $(DATA_DIR)
	$(BIN)/python tools/tables.py multilabel

docs: $(VENV)/.installed
	$(BIN)/python docs/make_api.py
	$(BIN)/python docs/make_cli.py
	$(PIP) install 'mkdocs-material>=9.8'
	$(BIN)/python -m mkdocs build --quiet --strict -f tools/mkdocs.yml
	@echo "The site is in build/site; open build/site/index.html"

bench-auto: $(VENV)/.installed
	$(BIN)/python benchmarks/auto.py
	$(BIN)/python tools/tables.py auto

learn-auto: $(VENV)/.installed
	$(BIN)/python benchmarks/learn_auto.py

bench-uneven: $(VENV)/.installed
	$(BIN)/python benchmarks/unbalanced.py --data-dir $(DATA_DIR)
	$(BIN)/python benchmarks/unbalanced.py --data-dir $(DATA_DIR) --held-out
	$(BIN)/python benchmarks/suggest.py --data-dir $(DATA_DIR)
	$(BIN)/python benchmarks/suggest.py --data-dir $(DATA_DIR) --held-out

bench-streams: $(VENV)/.installed
	$(BIN)/python benchmarks/streams.py

bench-spam: $(VENV)/.installed
	$(BIN)/python benchmarks/spam_stream.py --data-dir $(DATA_DIR)

bench-online: $(VENV)/.installed
	$(BIN)/python benchmarks/online.py --data-dir $(DATA_DIR) --change learning_rate=0.0003

bench-errors: $(VENV)/.installed
	$(BIN)/python benchmarks/label_errors.py --data-dir $(DATA_DIR)

bench-long: $(VENV)/.installed
	$(BIN)/python benchmarks/long_texts.py --data-dir $(DATA_DIR) --held-out

bench-pairs: $(VENV)/.installed
	$(BIN)/python benchmarks/pairs.py --data-dir $(DATA_DIR) --held-out

bench-folds: $(VENV)/.installed
	$(BIN)/python benchmarks/protaugment.py --data-dir $(DATA_DIR)

bench-serve: $(VENV)/.installed
	$(BIN)/python benchmarks/serve.py

bench-bulk: $(VENV)/.installed
	$(BIN)/python benchmarks/bulk.py

bench-shift: $(VENV)/.installed
	$(BIN)/python benchmarks/task_shift.py --part augmentation --data-dir $(DATA_DIR)
	$(BIN)/python benchmarks/task_shift.py --part hybrid --data-dir $(DATA_DIR)

lock:
	$(PYTHON) -m venv --clear .lock-venv
	.lock-venv/bin/python -m pip --quiet install $(TORCH)
	.lock-venv/bin/python -m pip --quiet install --editable '.[offline,plot,test,dev,docs]'
	echo "# Every version that was tested together, with Python 3.11; written by 'make lock'." > requirements.lock
	.lock-venv/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' >> requirements.lock
	rm -rf .lock-venv

clean:
	rm -rf $(VENV) .peers build dist .pytest_cache .mypy_cache .ruff_cache
