"""What it brings to say how often classes occur, on datasets whose classes are far from equally frequent.

    python benchmarks/class_prior.py --data-dir ../shared/data      # make bench-prior
    python benchmarks/class_prior.py --show                         # the table again

SMS spam and, of the datasets that recipes/wide.yaml reserves for model selection, those of which `nlpmeta adapt` says
that their classes are unequally frequent. Supports have as many texts of each class; the query is drawn as the data
come. `auto` on the shipped checkpoint, three draws of at most 300 query texts: as it is; told the shares of all of the
data; and told them wrongly, each multiplied by a number whose logarithm is normal with a standard deviation of a half.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from wide import held_out_sets

from nlpmeta.auto.answers import expecting
from nlpmeta.data import LabeledTexts
from nlpmeta.data.inputs import checked_class_prior, unequally_frequent
from nlpmeta.encoder.table import embeddings_folder
from nlpmeta.episodes import generator
from nlpmeta.episodes.kshot import KShotSampler
from nlpmeta.evaluation.measure import Tables
from nlpmeta.learners.start import starting_learner
from nlpmeta.metrics.scores import score_episode
from nlpmeta.sources.loading import load_source
from nlpmeta.storage.files import write_json

RESULTS = Path("results/class_prior.json")
SHOTS, DRAWS, MOST_QUERY, OFF_BY = (1, 5, 16), 3, 300, 0.5
TOLD = ("as it is", "told", "told wrongly")
Row = dict[str, object]


def measure(name: str, pool: LabeledTexts) -> list[Row]:
    """A row for each number of shots: accuracy and macro-F1 of every draw."""
    auto, tables, rows = starting_learner("auto"), Tables(embeddings_folder()), list[Row]()
    for n_shot in SHOTS:
        sampler = KShotSampler(pool, n_shot=n_shot, seed=0, rare="drop", max_query=MOST_QUERY)
        episodes = [sampler.episode(index) for index in range(DRAWS)]
        texts = list(dict.fromkeys(text for each in episodes for text in each.texts()))
        embed = tables.primed({"auto": auto}, texts, show_progress=False)["auto"]
        names = episodes[0].support.label_names
        shares = checked_class_prior(pool.with_classes(names).counts(), names)
        off = shares * np.exp(generator(0, n_shot).normal(0, OFF_BY, len(shares)))
        learners = {
            "as it is": auto,
            "told": expecting(auto, shares),
            "told wrongly": expecting(auto, tuple((off / off.sum()).tolist())),
        }
        row: Row = {"set": name, "shots": n_shot, "n_way": len(names), "largest": max(shares)}
        for told, learner in learners.items():
            scores = [score_episode(learner, episode, embed) for episode in episodes]
            row[told] = {"accuracy": [s.accuracy for s in scores], "macro_f1": [s.macro_f1 for s in scores]}
        rows.append(row)
        print(f"{name}, {n_shot} shots: {_cells(row)}", flush=True)
    return rows


def _cells(row: Row) -> str:
    means = [[100 * float(np.mean(row[told][each])) for each in ("accuracy", "macro_f1")] for told in TOLD]
    return " | ".join(f"{accuracy:.1f} ({macro_f1:.1f})" for accuracy, macro_f1 in means)


def table(rows: Sequence[Row]) -> str:
    """Markdown: accuracy and in brackets macro-F1, in %."""
    lines = ["| dataset | classes | largest share | shots | as it is | told | told wrongly |", "|---" * 7 + "|"]
    for row in rows:
        facts = f"| `{row['set']}` | {row['n_way']} | {100 * float(str(row['largest'])):.0f} % | {row['shots']}"
        lines.append(f"{facts} | {_cells(row)} |")
    for n_shot in SHOTS:
        some = [row for row in rows if row["shots"] == n_shot]
        mean = {
            told: {key: [np.mean([row[told][key] for row in some])] for key in ("accuracy", "macro_f1")}
            for told in TOLD
        }
        lines.append(f"| mean of {len(some)} | | | {n_shot} | {_cells(mean)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, keep the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--show", action="store_true", help="print the table of the existing results")
    asked = parser.parse_args()
    rows: list[Row] = []
    for name in () if asked.show else ("sms-spam", *held_out_sets()):
        source = load_source(name, data_dir=asked.data_dir)
        pool = source.load(split="train") if "train" in source.splits() else source.load()
        if unequally_frequent(pool.counts()) is not None:
            with torch.no_grad():
                rows += measure(name, pool)
            write_json(RESULTS, {"command": "python benchmarks/class_prior.py", "seed": 0, "rows": rows})
    print(table(rows or json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]))


if __name__ == "__main__":
    main()
