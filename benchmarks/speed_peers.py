"""Our engines beside sentence-transformers, SetFit's ONNX export and fastembed, the same encoder in all of them.

    python benchmarks/speed_peers.py --peers-python .peers/bin/python     # a part of make bench-speed
    python benchmarks/speed_peers.py --show                               # the table again

Each side is a process of its own (``speed_side.py``), in the interpreter that has its package; a peer that is not
installed there is named in the table. All load first, then take turns, in an order that turns with the rounds: so many
texts at once, as many one after the other. Figures are medians over rounds; the 99th percentile is of all single
texts. With several threads the best round is shown, as other work makes the threads wait for each other. Texts are
sentences of the starter corpus, none twice. Everything is timed from text to probabilities: five classes, a head that
costs nothing beside the encoder. Results: results/speed.json, with those of ``speed.py`` and ``speed_accuracy.py``.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from speed import RESULTS, machine, read_results, write_part
from speed_side import QINT8, SIDES

SCRIPT = Path(__file__).parent / "speed_side.py"
Row = dict[str, Any]
OURS = "nlpmeta"
NEEDS = {
    "sentence-transformers torch": ["sentence_transformers"],
    "sentence-transformers": ["sentence_transformers", "optimum", "onnxruntime"],
    "setfit": ["setfit", "skl2onnx", "onnxruntime"],
    "fastembed": ["fastembed"],
}
"""What the sides whose names start so import."""


def peers_folder() -> Path:
    """Where models are, in the forms that the sides read."""
    from nlpmeta.storage.files import user_cache

    return user_cache() / "speed"


def missing(side: str, python: Path | None) -> str:
    """Why a side cannot run; empty if it can."""
    if side.startswith(OURS):
        return ""
    if python is None:
        return "no interpreter with peers was given"
    needed = next(names for start, names in NEEDS.items() if side.startswith(start))
    code = f"import importlib.util as u; print(*[n for n in {needed} if u.find_spec(n) is None])"
    absent = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return f"not installed: {', '.join(absent)}" if absent else ""


class Worker:
    """A side in a process of its own."""

    def __init__(self, side: str, python: Path | None, folder: Path, *, threads: int) -> None:
        command = [
            sys.executable if side.startswith(OURS) else str(python),
            str(Path(__file__).parent / "speed_side.py"),
        ]
        settings = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.side = side
        self._process = subprocess.Popen(
            [*command, side, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if "SPEED_LOUD" not in os.environ else None,
            text=True,
            env=os.environ | settings,
        )
        self._answer()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.kill()
        self._process.communicate()  # and closes the pipes

    def ask(self, **request: object) -> dict[str, Any]:
        """The answer to a request."""
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.side} stopped; SPEED_LOUD=1 shows what it said")
        return json.loads(line)


def prepare(python: Path | None, texts: Sequence[str], known: tuple[list[str], list[str]]) -> Path:
    """The folder of models: ours saved and compiled, the peers' exported by themselves, from the same weights."""
    from nlpmeta import FewShotClassifier
    from nlpmeta.encoder.weights import DEFAULT_ENCODER, resolve
    from nlpmeta.export.head import compile_model, linear_heads

    folder = peers_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for name, options in {"logistic": {"method": "logistic", "checkpoint": "none"}, "auto": {}}.items():
        model = FewShotClassifier(device="cpu", **options).fit(*known)
        shutil.rmtree(folder / name, ignore_errors=True)
        model.save_pretrained(folder / name)
        model = FewShotClassifier.from_pretrained(folder / name, device="cpu")
        for engine in ("onnx", "onnx-int8"):
            compile_model(model, engine, folder / name)
        if name == "logistic":
            heads = linear_heads(model.learner_, model.state_)
            np.savez(folder / "head.npz", weight=heads.weight[0].numpy(), bias=heads.bias[0].numpy())
    (folder / "texts.json").write_text(json.dumps(list(texts)), encoding="utf-8")
    if python is not None and not missing("sentence-transformers onnx", python) and not (folder / "setfit").is_dir():
        side = [str(python), str(SCRIPT), "export", str(folder)]
        subprocess.run([*side, str(resolve(DEFAULT_ENCODER).folder)], check=True, stdout=sys.stderr)
    return folder


def disk(side: str, folder: Path) -> float:
    """Megabytes of what a side reads."""
    from nlpmeta.classifier.light import LightClassifier
    from nlpmeta.encoder.weights import DEFAULT_ENCODER, resolve
    from nlpmeta.learners.start import checkpoint_folder

    st = folder / "st"
    files: list[Path] = []
    if side.startswith(OURS):
        model = folder / ("auto" if "auto" in side else "logistic")
        files += model.rglob("*")
        if side.endswith("torch"):
            files += resolve(DEFAULT_ENCODER).folder.rglob("*")
            files += checkpoint_folder("default").rglob("*") if "auto" in side else []
        else:
            light = LightClassifier.of_folder(model, side.rpartition(" ")[2])
            assert light is not None and light.encoder.compiled is not None  # noqa: S101
            files += light.encoder.compiled.folder.rglob("*")
    else:
        files += [path for path in st.rglob("*") if path.suffix not in (".onnx", ".safetensors")]
        graph = st / "onnx" / (QINT8 if side.endswith("int8") else "model.onnx")
        graph = folder / "setfit" / "model.onnx" if side.startswith("setfit") else graph
        files += [st / "model.safetensors"] if side.endswith("torch") else [graph]
    return round(sum(path.stat().st_size for path in files if path.is_file()) / 1e6, 1)


def measure(workers: Sequence[Worker], rounds: int, bulk: int, one: int) -> dict[str, dict[str, float]]:
    """Figures by side; the first round warms up and says what memory is taken."""
    found: dict[str, dict[str, list[float]]] = {each.side: {} for each in workers}
    for number in range(rounds + 1):
        turn = number % len(workers)
        for worker in [*workers[turn:], *workers[:turn]]:
            answer = worker.ask(bulk=bulk if number else bulk // 2, one=one if number else 5, memory=True)
            kept = found[worker.side]
            kept["mb"] = [answer["memory"]]
            if number:
                kept.setdefault("wall", []).append(bulk / answer["bulk"][0])
                kept.setdefault("cpu", []).append(bulk / answer["bulk"][1])
                for name, column in (("one", 0), ("one_cpu", 1)):
                    kept.setdefault(name, []).extend(1000 * each[column] for each in answer["one"])
    return {
        side: {
            "texts_per_second": round(statistics.median(each["wall"]), 1),
            "best_texts_per_second": round(max(each["wall"]), 1),
            "texts_per_cpu_second": round(statistics.median(each["cpu"]), 1),
            "mb_memory": round(each["mb"][0]),
        }
        | (
            {
                "one_ms": round(statistics.median(each["one"]), 2),
                "one_cpu_ms": round(statistics.median(each["one_cpu"]), 2),
                "one_ms_99": round(float(np.percentile(each["one"], 99)), 2),
            }
            if each["one"]
            else {}
        )
        for side, each in found.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers-python", type=Path, help="interpreter that has the peers")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bulk", type=int, default=128, help="texts at once")
    parser.add_argument("--one", type=int, default=40, help="texts one after the other, each round")
    parser.add_argument("--only", default="", help="sides whose name contains one of these words, comma-separated")
    parser.add_argument("--show", action="store_true", help="print the table of what there is")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    if asked.show:
        show(read_results(asked.out))
        return 0
    from nlpmeta import load_source

    data = load_source("starter").load()
    chosen = sorted(set(data.names()))[:5]
    known = [row for name in chosen for row in [i for i, each in enumerate(data.names()) if each == name][:4]]
    apart = np.random.default_rng(0).permutation(sorted(set(data.texts))).tolist()[: max(asked.bulk, asked.one)]
    support = [data.texts[row] for row in known], [data.names()[row] for row in known]
    folder = prepare(asked.peers_python, apart, support)
    wanted = [each for each in SIDES if any(word in each for word in asked.only.split(","))]
    absent = {side: why for side in wanted if (why := missing(side, asked.peers_python))}
    for threads in map(int, asked.threads.split(",")):
        with ExitStack() as stack:
            workers = [
                stack.enter_context(Worker(side, asked.peers_python, folder, threads=threads))
                for side in wanted
                if side not in absent
            ]
            for worker in workers:
                worker.ask(texts=str(folder / "texts.json"))
            print(f"measuring, threads {threads}", flush=True)
            found = measure(workers, asked.rounds, asked.bulk, asked.one if threads == 1 else 0)
            print("measured", flush=True)
        facts = {"machine": machine(threads), "rounds": asked.rounds, "texts": asked.bulk, "absent": absent}
        before = read_results(asked.out).get("peers", {})
        old = before.get(str(threads), {}).get("sides", {})
        every = old | {side: each | {"mb_disk": disk(side, folder)} for side, each in found.items()}
        write_part("peers", before | {str(threads): facts | {"sides": every}}, asked.out)
    show(read_results(asked.out))
    return 0


def show(found: dict[str, Any]) -> None:
    """Markdown: a line for each side."""
    peers, accuracy = found.get("peers", {}), found.get("accuracy", [])
    print(
        "| | texts/s, 1 thread | texts/s, 2 threads | one text, ms | 99th | MB on disk | MB of memory | accuracy, % |"
    )
    print("|---" * 8 + "|")
    one, two = (peers.get(threads, {}).get("sides", {}) for threads in ("1", "2"))
    for side in SIDES:
        here, there = one.get(side), two.get(side, {})
        if here is None:
            print(f"| {side} | {peers.get('1', {}).get('absent', {}).get(side, 'not measured')} " + "| " * 6 + "|")
            continue
        auto = " auto " in side
        rows = [row for row in accuracy if row["side"] == side.replace(" auto", "")]
        each = {name: [row["auto" if auto else "logistic"] for row in rows if row["set"] == name]
                for name in {row["set"] for row in rows}}  # fmt: skip
        right = f"{100 * np.mean([np.mean(some) for some in each.values()]):.1f}" if each else ""
        cells = [here["texts_per_second"], there.get("best_texts_per_second", ""), here.get("one_ms", ""),
                 here.get("one_ms_99", ""), here["mb_disk"], here["mb_memory"], right]  # fmt: skip
        print(f"| {side} | {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    sys.exit(main())
