"""How many texts a second `nlpmeta predict` labels in many files: one worker, two, and two of Ray.

    python benchmarks/bulk.py                  # make bench-bulk: 200,000 texts
    python benchmarks/bulk.py --texts 20000 --engine onnx

Texts are those of the starter corpus, drawn with a seed and joined to lengths of 3 to 60 words; the model is adapted
to five examples a class of it. Each run is the command itself in a process of its own, every worker with one thread,
so a rate includes the start. The files of all runs must be the same to the last byte. CPU seconds of the command and
its workers say more than the clock where cores are busy; those of Ray are not known. Results: results/bulk.json
"""

import argparse
import csv
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.util import find_spec
from pathlib import Path

from nlpmeta import load_source

RESULTS = Path(__file__).parent.parent / "results" / "bulk.json"
LANG, FILES, SEED = "sw", 40, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=200_000)
    parser.add_argument("--engine", default="onnx")
    parser.add_argument("--ray", action="store_true", help="two workers of Ray, too")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    rows: dict[str, dict[str, float | bool]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        n_words = write_texts(folder / "texts", asked.texts)
        print(f"{asked.texts} texts of {n_words / asked.texts:.1f} words on average in {FILES} files")
        adapt(folder / "model")
        few = folder / "few"
        write_texts(few, FILES)
        predict(folder, few, "warm", asked.engine, ["--workers", "1"])  # compiles, where the engine is compiled
        runs = {"one worker": ["--workers", "1"], "two workers": ["--workers", "2"]}
        if asked.ray and find_spec("ray"):
            runs["two workers of Ray"] = ["--workers", "2", "--ray", "local"]
        first = None
        for name, options in runs.items():
            before = cpu_seconds()
            seconds, files = predict(folder, folder / "texts", name.replace(" ", "-"), asked.engine, options)
            used, first = cpu_seconds() - before, first or files
            rows[name] = {"seconds": round(seconds, 1), "rate": round(asked.texts / seconds, 1), "same": files == first}
            rows[name] |= {} if "--ray" in options else {"cpu_seconds": round(used, 1)}
            print(
                f"{name}: {rows[name]['rate']} texts/s, {seconds:.1f} s, CPU {used:.1f} s, same files: {files == first}"
            )
    one = rows["one worker"]["rate"]
    gains = {name: round(row["rate"] / one, 2) for name, row in rows.items()}
    print(f"against one worker: {gains}")
    facts = {"date": date.today().isoformat(), "texts": asked.texts, "words": round(n_words / asked.texts, 1)}
    facts |= {"files": FILES, "engine": asked.engine, "seed": SEED, "cores": os.cpu_count(), "threads": 1}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps({**facts, "runs": rows, "gains": gains}, indent=2) + "\n", encoding="utf-8")


def cpu_seconds() -> float:
    """Of the processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write_texts(folder: Path, n_texts: int) -> int:
    """So many texts in CSV files, and how many words they have."""
    folder.mkdir()
    draw = random.Random(SEED)  # noqa: S311
    words = [word for text in load_source("starter").load(LANG).texts for word in text.split()]
    n_words = 0
    for number in range(FILES):
        with (folder / f"part-{number:03}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "text"])
            for row in range(number, n_texts, FILES):
                text = draw.choices(words, k=min(60, 3 + int(draw.expovariate(1 / 9))))
                n_words += len(text)
                writer.writerow([row, " ".join(text)])
    return n_words


def adapt(folder: Path) -> None:
    command = [sys.executable, "-m", "nlpmeta", "adapt", "--lang", LANG, "--shots", "5", "--draws", "1"]
    subprocess.run([*command, "--seed", str(SEED), "--out", str(folder)], check=True, stdout=subprocess.DEVNULL)


def predict(folder: Path, texts: Path, name: str, engine: str, options: list[str]) -> tuple[float, dict[str, bytes]]:
    """Seconds of the command, and what it wrote."""
    labels = folder / name
    command = [sys.executable, "-m", "nlpmeta", "predict", str(folder / "model"), "--file", str(texts / "*.csv")]
    command += ["--out", str(labels), "--engine", engine, *options]
    start = time.perf_counter()
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    seconds = time.perf_counter() - start
    return seconds, {path.name: path.read_bytes() for path in sorted(labels.glob("part-*.csv"))}


if __name__ == "__main__":
    main()
