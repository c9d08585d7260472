"""Seconds, milliseconds and megabytes of a prediction by engine: ``make bench-speed``.

python benchmarks/speed.py                    # cold starts, one text, and bulk
python benchmarks/speed.py --rounds 3         # a short run

Everything is paired: the sides alternate in each round, and a figure is the median over rounds of CPU seconds, which
other work on the machine disturbs less than the clock. A cold start is a process of its own: ``nlpmeta predict MODEL
TEXT`` by each engine, beside a script that imports torch and transformers, loads the same encoder and tokenizer, and
embeds that text; so is the second run of ``nlpmeta adapt``. Prints one JSON object with the machine's size, threads and
instruction sets, and keeps it in results/speed.json.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from nlpmeta import FewShotClassifier

RESULTS = Path(__file__).parent.parent / "results" / "speed.json"
TEXT = "nataka kulala mapema leo"
ENGINES = ("torch", "onnx", "onnx-int8")
SCRIPT = """
import sys, torch
from transformers import AutoModel, AutoTokenizer
tokenizer, model = AutoTokenizer.from_pretrained(sys.argv[1]), AutoModel.from_pretrained(sys.argv[1])
with torch.inference_mode():
    batch = tokenizer(["query: " + sys.argv[2]], return_tensors="pt")
    print(model(**batch).last_hidden_state.mean(1).norm().item())
"""

WATCH = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""
"""Starts a process from a small one: the memory of a large one would count as that of its child."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--texts", type=int, default=300, help="texts of the bulk figure")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)
    from nlpmeta import FewShotClassifier, load_source
    from nlpmeta.encoder.compiling import compiled_name
    from nlpmeta.encoder.engines import CompiledEncoder, precision_of
    from nlpmeta.encoder.weights import DEFAULT_ENCODER, resolve
    from nlpmeta.export.head import compile_model

    warnings.simplefilter("ignore")
    data = load_source("starter").load()
    chosen = sorted(set(data.names()))[:5]
    known = [row for name in chosen for row in [i for i, each in enumerate(data.names()) if each == name][:4]]
    classifier = FewShotClassifier(device="cpu").fit(
        [data.texts[row] for row in known], [data.names()[row] for row in known]
    )
    texts = [text for text, name in zip(data.texts, data.names(), strict=True) if name in chosen][: asked.texts]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        classifier.save_pretrained(model)
        agreement = {engine: compile_model(classifier, engine, model) for engine in ENGINES[1:]}
        cold = cold_starts(model, resolve(DEFAULT_ENCODER).folder, asked.rounds)
    adapt = second_adapt(resolve(DEFAULT_ENCODER).folder, asked.rounds)
    warm = warm_runs(classifier, texts, asked.rounds)
    encoder = classifier.learner_.encoder.select(classifier.learner_.predictor(classifier.state_).adapter_scales)
    size = {}
    for engine in ENGINES[1:]:
        made = CompiledEncoder.from_cache(compiled_name(encoder, precision_of(engine)))
        size[engine] = round(sum(file.stat().st_size for file in made.folder.glob("encoder.onnx*")) / 1e6, 1)
    found = {
        "machine": machine(asked.threads),
        "rounds": asked.rounds,
        "views": encoder.scales,
        "agreement": {name: each and vars(each) for name, each in agreement.items()},
        "graph_mb": size,
        "cold": cold,
        "adapt": adapt,
        "warm": warm,
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    write_part("engines", found, asked.out)
    return 0


def read_results(path: Path) -> dict[str, Any]:
    """All that was measured before, by the three scripts of ``make bench-speed``."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_part(name: str, found: object, path: Path) -> None:
    """Replace a part of the results."""
    from nlpmeta.storage.files import write_json

    write_json(path, read_results(path) | {name: found})


def machine(threads: int) -> dict[str, object]:
    """What figures of time depend on."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    flags = set(next((line.split(":")[1] for line in info.splitlines() if line.startswith("flags")), "").split())
    sets = [name for name in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if name in flags]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"cores": os.cpu_count(), "threads": threads, "kind": platform.machine(), "sets": sets, "load": load}


def cold_starts(model: Path, encoder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """CPU seconds and megabytes of whole processes, and the median ratio to the script over the rounds."""
    command = [sys.executable, "-m", "nlpmeta", "predict", str(model), TEXT, "--engine"]
    sides = {"script": [sys.executable, "-c", SCRIPT, str(encoder), TEXT]}
    sides |= {engine: [*command, engine] for engine in ENGINES}
    return paired(sides, rounds)


def second_adapt(encoder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """The same of ``nlpmeta adapt`` on the compiled encoder, when it ran before: its embeddings are on disk."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "nlpmeta", "adapt", "--lang", "sw", "--shots", "5", "--overwrite"]
        adapt = [*words, "--out", str(Path(folder) / "model")]
        sides = {"script": [sys.executable, "-c", SCRIPT, str(encoder), TEXT], "adapt": adapt}
        return paired(sides, rounds)


def paired(sides: dict[str, list[str]], rounds: int) -> dict[str, dict[str, float]]:
    """Whole processes side after side; the first of ``sides`` is the script."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    memory: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):  # the first fills the file cache
        for name, words in sides.items():
            used, most = cost(words)
            if number:
                seconds[name].append(used)
                memory[name].append(most)
    return {
        name: {
            "cpu_seconds": round(statistics.median(seconds[name]), 2),
            "of_script": round(
                statistics.median(a / b for a, b in zip(seconds[name], seconds["script"], strict=True)), 3
            ),
            "mb": round(statistics.median(memory[name])),
        }
        for name in sides
    }


def cost(words: list[str]) -> tuple[float, float]:
    """CPU seconds and megabytes of a process."""
    done = subprocess.run([sys.executable, "-c", WATCH, *words], capture_output=True, text=True, check=True)
    seconds, megabytes = done.stdout.split()
    return float(seconds), float(megabytes)


def warm_runs(classifier: "FewShotClassifier", texts: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds for one text and texts a second in bulk, in CPU time of this process, and labels as torch's."""
    one: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    bulk: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    labels: dict[str, np.ndarray] = {}
    for number in range(rounds + 1):
        for engine in ENGINES:
            classifier.engine = engine
            start = time.process_time()
            for text in texts[:20]:
                classifier.predict_proba([text])
            middle = time.process_time()
            labels[engine] = classifier.predict_proba(texts)
            end = time.process_time()
            if number:
                one[engine].append((middle - start) / 20)
                bulk[engine].append(end - middle)
    classifier.engine = "torch"
    return {
        engine: {
            "one_text_ms": round(1000 * statistics.median(one[engine]), 1),
            "texts_per_second": round(len(texts) / statistics.median(bulk[engine]), 1),
            "one_text_times_faster": round(
                statistics.median(a / b for a, b in zip(one["torch"], one[engine], strict=True)), 2
            ),
            "bulk_times_faster": round(
                statistics.median(a / b for a, b in zip(bulk["torch"], bulk[engine], strict=True)), 2
            ),
            "same_label": round(float((labels[engine].argmax(1) == labels["torch"].argmax(1)).mean()), 4),
            "largest_difference": float(np.abs(labels[engine] - labels["torch"]).max()),
        }
        for engine in ENGINES
    }


if __name__ == "__main__":
    sys.exit(main())
