"""Prints results/meta.json as the Markdown tables of docs/results.md.

python benchmarks/table.py
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nlpmeta.metrics.scores import paired_difference

RESULTS = Path("results/meta.json")
SETS = {
    ("injongo", "swa"): "Injongo Swahili, 40 intents",
    ("massive", "sw-KE"): "MASSIVE Swahili, 60 intents",
    ("sib200", "swh_Latn"): "SIB-200 Swahili, 7 topics",
    ("banking77", "en"): "BANKING77, 77 intents",
    ("sms-spam", "en"): "SMS spam, 2 classes",
}
FROZEN = ("logistic", "ridge", "prototypical")
META_TRAINED = ("prototypical@default", "maml@default")
DEFAULT, WITHOUT_INJONGO = "auto@default", "auto@runs/without-injongo"
HELD_OUT = ("swa", "kin", "zul", "yor", "hau", "lin")
LEAVE_OUT = {
    DEFAULT: HELD_OUT,
    "auto@runs/leave-out-a": ("amh", "ewe", "ibo", "lug", "orm"),
    "auto@runs/leave-out-b": ("sna", "sot", "twi", "wol", "xho"),
}
"""The languages of Injongo that each checkpoint never saw, though it saw other languages of these tasks."""
AFRICAN = tuple(sorted(lang for langs in LEAVE_OUT.values() for lang in langs))
Row = dict[str, "object"]
Rows = dict[tuple[str, str, int, str], Row]


def percent(row: Row) -> str:
    """``84.0 ± 1.2``."""
    return f"{100 * row['accuracy']['mean']:.1f} ± {100 * row['accuracy']['ci95']:.1f}"


def best_frozen(rows: Rows, task: tuple[str, str, int]) -> Row:
    """The frozen head with the highest mean, chosen with hindsight: the hardest baseline."""
    return max((rows[(*task, head)] for head in FROZEN), key=lambda row: row["accuracy"]["mean"])


def gain(ours: Row, frozen: Row) -> str:
    """``+4.9 (3.5 to 6.8)``, paired over the draws."""
    return paired_difference(frozen["accuracies"], ours["accuracies"]).percent()


def by_set(rows: Rows) -> None:
    print("| task | shots | best frozen head | meta-trained prototypes | MAML | nlpmeta | difference |")
    print("|---|---|---|---|---|---|---|")
    for (data, lang), title in SETS.items():
        for shot in sorted({key[2] for key in rows if key[:2] == (data, lang) and key[3] == DEFAULT}):
            task = (data, lang, shot)
            frozen, ours = best_frozen(rows, task), rows[(*task, DEFAULT)]
            cells = [f"{percent(frozen)} ({frozen['method']})"]
            cells += [percent(rows[(*task, each)]) if (*task, each) in rows else "" for each in META_TRAINED]
            print(f"| {title} | {shot} | {' | '.join(cells)} | **{percent(ours)}** | {gain(ours, frozen)} |")


def by_language(rows: Rows, title: str, unseen: dict[str, tuple[str, ...]]) -> None:
    """Injongo at 5 shots, each language on a checkpoint that never saw it, and the mean."""
    pairs = {
        lang: (best_frozen(rows, ("injongo", lang, 5)), rows["injongo", lang, 5, method])
        for method, langs in unseen.items()
        for lang in langs
        if ("injongo", lang, 5, method) in rows
    }
    if not pairs:
        return
    print(f"\n| Injongo, 40 intents, 5 shots: {title} | best frozen head | nlpmeta | difference |\n|---|---|---|---|")
    for lang, (frozen, ours) in sorted(pairs.items()):
        print(f"| {lang} | {percent(frozen)} ({frozen['method']}) | {percent(ours)} | {gain(ours, frozen)} |")
    one, two = (100 * np.mean([pair[side]["accuracy"]["mean"] for pair in pairs.values()]) for side in (0, 1))
    print(f"| mean of {len(pairs)} languages | {one:.1f} | {two:.1f} | {two - one:+.1f} |")


def show(found: Sequence[Row]) -> None:
    """Print everything there is."""
    rows = {(row["data"], row["lang"], row["n_shot"], row["method"]): row for row in found}
    by_set(rows)
    by_language(rows, "no text of the language in training", LEAVE_OUT)
    by_language(rows, "no text of Injongo in training", {WITHOUT_INJONGO: AFRICAN})


if __name__ == "__main__":
    show(json.loads(RESULTS.read_text(encoding="utf-8"))["rows"])
