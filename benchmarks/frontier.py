"""Unsupervised and continual meta-learning: the tables of docs/frontier.md, in results/frontier.json.

    nlpmeta train unsupervised-multilingual --data-dir ../shared/data      # first; about an hour of half a core
    python benchmarks/frontier.py --part without-labels                    # 10 minutes
    python benchmarks/frontier.py --part online                            # 30 minutes

Existing rows are replaced, the others stay.
"""

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

OUT, ROWS = Path("results/frontier.json"), Path("results/without_labels.json")
FROZEN = "logistic,ridge,prototypical"
WITHOUT_LABELS = "runs/unsupervised-multilingual"
SETS = {
    "Injongo swa": ("--data injongo --lang swa", (1, 5)),
    "MASSIVE sw": ("--data massive --lang sw", (1, 5)),
    "SIB-200 swh": ("--data sib200 --lang swh_Latn", (1, 5)),
    "BANKING77": ("--data banking77", (1, 5)),
    "SMS spam": ("--data sms-spam", (4, 8)),
}
"""What is measured, and the shots of the rows that are called 1 and 5; beside these all are measured by names alone."""


def without_labels(data_dir: Path, *, checkpoint: str, draws: int) -> int:
    """The checkpoint that saw no label, beside the frozen encoder, on the sets of make bench-meta."""
    by_names = f"auto@none,auto@{checkpoint}"
    by_examples = f"{FROZEN},auto@none,prototypical@{checkpoint},logistic@{checkpoint},auto@{checkpoint}"
    for which, shots in SETS.values():
        for methods, asked in ((by_names, "0"), (by_examples, ",".join(map(str, shots)))):
            words = ["evaluate", methods, *which.split(), "--shots", asked, "--episodes", str(draws), "--compare"]
            words += ["auto@none", "--data-dir", str(data_dir), "--out", str(ROWS)]
            if code := subprocess.run([sys.executable, "-m", "nlpmeta", *words], check=False).returncode:
                return code
    show_without_labels(checkpoint)
    return 0


def show_without_labels(checkpoint: str) -> None:
    """The table of docs/frontier.md: by set and shots, and the means."""
    rows = json.loads(ROWS.read_text(encoding="utf-8"))["rows"]
    columns = (
        "auto@none",
        f"auto@{checkpoint}",
        f"prototypical@{checkpoint}",
        f"logistic@{checkpoint}",
        *FROZEN.split(","),
    )
    found = {(row["data"], row["n_shot"], row["method"]): 100 * row["accuracy"]["mean"] for row in rows}
    table = Table("set", "shots", *columns)
    for place, about in enumerate((0, 1, 5)):
        means: dict[str, list[float]] = {column: [] for column in columns}
        for name, (which, shots) in SETS.items():
            n_shot = (0, *shots)[place]
            values = {column: found.get((which.split()[1], n_shot, column)) for column in columns}
            for column, value in values.items():
                means[column] += [] if value is None else [value]
            table.add_row(name, str(n_shot), *("" if value is None else f"{value:.1f}" for value in values.values()))
        table.add_row("mean", str(about), *(f"{np.mean(each):.1f}" if each else "" for each in means.values()))
    Console(width=160).print(table)


def tasks(data_dir: Path) -> Iterator[tuple[str, Any, Any]]:
    """Forty tasks in a fixed order: name, texts to learn from, texts to measure on; no test split, nothing held out."""
    from nlpmeta.sources.loading import load_source

    def parts(name: str, lang: str | None, split: str, n_way: int, most: int) -> list[tuple[str, Any, Any]]:
        pool = load_source(name, data_dir=data_dir).load(lang, split)
        names = [n for n, count in pool.counts().items() if count >= 16]
        groups = [names[i : i + n_way] for i in range(0, len(names), n_way)]
        found = []
        for number, group in enumerate(group for group in groups if len(group) >= 2):
            part = pool.with_classes(group)
            rng = np.random.default_rng(number)
            order = rng.permutation(len(part))[:most]
            cut = len(order) // 2
            halves = (part.select(sorted(order[:cut].tolist())), part.select(sorted(order[cut:].tolist())))
            found.append((f"{name} {lang or ''} {number}".replace("  ", " "), *halves))
        return found

    banking, clinc = parts("banking77", None, "train", 11, 600), parts("clinc150", None, "train", 15, 600)
    massive = [parts("massive", lang, "train", 20, 600)[0] for lang in ("de", "fr", "es", "hi", "ar", "zh", "id", "af")]
    topics = [parts("sib200", lang, "train", 7, 400)[0] for lang in ("ibo", "xho", "arb", "hau", "sna", "amh", "lin")]
    injongo = [parts("injongo", lang, "train", 40, 600)[0] for lang in ("hau", "xho", "amh", "ibo", "wol", "sna")]
    spam = [parts(name, None, "train", 2, 400)[0] for name in ("sms-spam", "spamassassin")]
    kinds = [banking, clinc, massive, topics, injongo, spam]
    queue = [task for column in itertools.zip_longest(*kinds) for task in column if task is not None]
    yield from queue[:40]


def leader_on(start: str, steps: int) -> Any:
    """An online meta-learner on the shipped checkpoint, or on the frozen encoder with fresh adapters."""
    from nlpmeta.encoder.lora import AdapterSettings, add_adapter
    from nlpmeta.encoder.text_encoder import TextEncoder
    from nlpmeta.learners.prototypical import PrototypicalNetwork
    from nlpmeta.online.meta import OnlineMetaLearner
    from nlpmeta.online.meta_files import OnlineTaskSettings

    settings = OnlineTaskSettings(steps=steps, buffer=40, versions=0, n_shot=3, n_query=60)
    if start != "none":
        return OnlineMetaLearner.start(start, settings)
    encoder = TextEncoder.from_pretrained()
    add_adapter(encoder, AdapterSettings(rank=16, alpha=32), seed=0)
    return OnlineMetaLearner(PrototypicalNetwork(encoder, metric="cosine", temperature=0.05, names=True), settings)


class FineTuned:
    """Plain fine-tuning of the same adapters on the classes of all tasks so far, with as many texts a step."""

    def __init__(self, leader: Any, texts_a_step: int) -> None:
        self.leader, self.texts_a_step = leader, texts_a_step
        self.texts: list[str] = []
        self.classes: list[int] = []
        self.n_classes = 0

    def learn(self, task: Any, number: int) -> None:
        import torch

        self.texts += task.texts
        self.classes += [self.n_classes + label for label in task.labels]
        self.n_classes += task.n_way
        encoder, rng = self.leader.learner.encoder, np.random.default_rng(number)
        adapters = [weight for name, weight in self.leader._weights.items() if name.startswith("encoder.")]
        head = torch.nn.Linear(encoder.dim, self.n_classes)
        optimizer = torch.optim.AdamW(
            [{"params": adapters, "lr": self.leader.settings.learning_rate}, {"params": head.parameters(), "lr": 1e-2}]
        )
        for _ in range(self.leader.settings.steps):
            rows = rng.choice(len(self.texts), min(self.texts_a_step, len(self.texts)), replace=False)
            features = encoder([self.texts[row] for row in rows])
            labels = torch.tensor([self.classes[row] for row in rows])
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(head(features) / 0.05, labels).backward()
            optimizer.step()


def online(data_dir: Path, *, steps: int, start: str, texts_a_step: int) -> dict[str, Any]:
    """Accuracy at arrival and at the end: never updating, fine-tuning on all so far, following the leader."""
    queue = list(tasks(data_dir))
    follow, never, tuned = leader_on(start, steps), leader_on(start, 0), leader_on(start, 0)
    fine = FineTuned(leader_on(start, steps), texts_a_step)
    tuned.learner = fine.leader.learner
    rows: dict[str, list[float]] = {"follow": [], "never": [], "fine-tune": []}
    learned_after: dict[str, list[float]] = {name: [] for name in rows}
    begun = time.perf_counter()
    for number, (name, learn, test) in enumerate(queue):
        for arm, leader in (("follow", follow), ("never", never), ("fine-tune", tuned)):
            arrival = leader.meet(learn, name=name, test=test)
            rows[arm].append(arrival.on_arrival)
            learned_after[arm].append(arrival.after)
        fine.learn(learn, number)
        means = {arm: f"{100 * np.mean(values):.1f}" for arm, values in rows.items()}
        print(f"{number + 1} {name}: {means} ({time.perf_counter() - begun:.0f} s)", flush=True)
    ends = {
        arm: list(leader.review().accuracies.values()) for arm, leader in (("follow", follow), ("fine-tune", tuned))
    }
    forgotten = float(np.mean(np.asarray(learned_after["follow"]) - np.asarray(ends["follow"])))
    return {
        f"online from {start}": {
            "steps": steps,
            "tasks": [name for name, *_ in queue],
            "on_arrival": rows,
            "after": learned_after,
            "at_the_end": ends,
            "forgetting": forgotten,
            "texts_a_step": texts_a_step,
        }
    }


def show_online(found: dict[str, Any]) -> None:
    from nlpmeta.metrics.scores import paired_difference

    for name, part in found.items():
        if not name.startswith("online"):
            continue
        table = Table("way of going on", "at arrival, %", "difference to following (95 %)", title=name)
        follow = part["on_arrival"]["follow"]
        for arm, values in part["on_arrival"].items():
            gain = "" if arm == "follow" else paired_difference(values, follow).percent()
            table.add_row(arm, f"{100 * np.mean(values):.1f}", gain)
        Console().print(table)
        print(f"forgetting: {100 * part['forgetting']:.2f} points")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("without-labels", "online"), required=True)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--steps", type=int, help="online: optimiser steps, by default 8")
    parser.add_argument("--checkpoint", default=WITHOUT_LABELS, help="without-labels: the folder that was trained")
    parser.add_argument("--start", default="none", help="online: none (fresh adapters) or a checkpoint")
    parser.add_argument(
        "--texts-a-step", type=int, default=77, help="online: of fine-tuning; episodes have 77 on average"
    )
    asked = parser.parse_args()
    if asked.part == "without-labels":
        return without_labels(asked.data_dir, checkpoint=asked.checkpoint, draws=asked.draws)
    found = online(asked.data_dir, steps=asked.steps or 8, start=asked.start, texts_a_step=asked.texts_a_step)
    before = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    OUT.write_text(json.dumps({**before, **found}, indent=1) + "\n", encoding="utf-8")
    show_online(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
