"""Zero examples: the names of the classes alone, and with a sentence about each, meta-trained and frozen.

    python benchmarks/names.py --data-dir ../shared/data              # make bench-names; what is done is not repeated
    python benchmarks/names.py --data-dir ../shared/data --only massive
    python benchmarks/names.py --show                                 # the tables again

Texts are 2,000 at most of the test split, of all there are without one, and 500 of the train split for the wide sets
that recipes/wide.yaml reserves for model selection. The sentences in benchmarks/descriptions were written from the
names of the classes alone; no text of the data was read for them.
"""

import json
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import torch
import typer
from wide import held_out_sets

from nlpmeta import Episode, LabeledTexts, load_source
from nlpmeta.data import wordless
from nlpmeta.encoder.table import EmbeddingTable, embeddings_folder
from nlpmeta.encoder.views import ADAPTED, FROZEN, ScaledEncoder
from nlpmeta.episodes import generator
from nlpmeta.episodes.kshot import NamesAlone
from nlpmeta.learners.base import Embed, Learner
from nlpmeta.learners.start import starting_learner
from nlpmeta.metrics.scores import score_episode
from nlpmeta.sources.loading import Descriptions
from nlpmeta.storage.files import write_json

RESULTS = Path("results/names.json")
SAID = Path(__file__).parent / "descriptions"
SETS = {
    "injongo:swa": "Injongo Swahili",
    "massive:sw": "MASSIVE Swahili",
    "massive:en": "MASSIVE English (seen)",
    "sib200:swh_Latn": "SIB-200 Swahili",
    "banking77": "BANKING77",
    "clinc150": "CLINC150 (seen)",
    "sms-spam": "SMS spam",
}
COLUMNS = ("frozen", "prototypical@default", "auto@default")
MOST, MOST_WIDE = 2000, 500
Row = dict[str, object]


def main(
    *,
    data_dir: Annotated[Path, typer.Option(help="Folder with copies of public data sets.")] = Path("../shared/data"),
    only: Annotated[str, typer.Option(help="Only sets whose name contains this.")] = "",
    show: Annotated[bool, typer.Option("--show", help="Print the tables and measure nothing.")] = False,
    out: Annotated[Path, typer.Option(help="Where the rows are written.")] = RESULTS,
) -> None:
    """Measure what is missing, a row at a time, and print the tables."""
    rows: list[Row] = json.loads(out.read_text(encoding="utf-8"))["rows"] if out.exists() else []
    done = {(row["set"], row["described"]) for row in rows}
    views = {} if show else seen()
    for name in () if show else (each for each in (*SETS, *held_out_sets()) if only in each):
        said = SAID / f"{name.partition(':')[0]}.csv"
        for described in (False, True) if said.exists() else (False,):
            if (name, described) in done:
                continue
            pool, scored = texts_of(name, data_dir)
            if described:
                pool = Descriptions.of_file(said).added_to(pool)
            kept, without = known_by_words(pool)
            row: Row = {"set": name, "wide": name in held_out_sets(), "described": described, "without": list(without)}
            rows.append(row | measured(name, NamesAlone(kept, test=scored).episode(0), views))
            write_json(out, {"rows": rows})
    print("\n\n".join(tables(rows)))


def seen() -> dict[str, tuple[Learner, Embed]]:
    """The learner of each column and where its embeddings come from: one table, as ``auto`` reads both views."""
    auto = starting_learner("auto")
    table, encoder = EmbeddingTable(auto.encoder, embeddings_folder()), cast("ScaledEncoder", auto.encoder)

    def view(scale: float) -> Embed:
        return lambda texts: table(texts)[:, encoder.columns(scale)]

    frozen = starting_learner("prototypical", checkpoint="none")
    found = (frozen, view(FROZEN)), (starting_learner("prototypical"), view(ADAPTED)), (auto, table)
    return dict(zip(COLUMNS, found, strict=True))


def texts_of(name: str, data_dir: Path) -> tuple[LabeledTexts, LabeledTexts]:
    """The train split of a set, for its classes, and what is scored: part of its test split, or of all there is."""
    data, _, lang = name.partition(":")
    source, wide = load_source(data, data_dir=data_dir), data in held_out_sets()
    pool = found = source.load(lang or None, "train")
    if "test" in source.splits() and not wide:
        found = source.load(lang or None, "test")
    most = MOST_WIDE if wide else MOST
    if len(found) > most:
        found = found.select(np.sort(generator(0, 0).choice(len(found), most, replace=False)).tolist())
    return pool, found


def known_by_words(pool: LabeledTexts) -> tuple[LabeledTexts, tuple[str, ...]]:
    """The classes that can be known without an example, and the names of the others: they say nothing, such as w2."""
    without = wordless(pool.label_names, pool.descriptions)
    return pool.with_classes([name for name in pool.label_names if name not in without]), without


def measured(name: str, episode: Episode, views: dict[str, tuple[Learner, Embed]]) -> Row:
    """What each column reaches."""
    reached: dict[str, dict[str, float]] = {}
    for column, (learner, embed) in views.items():
        score = score_episode(learner, episode, embed)
        reached[column] = {"accuracy": score.accuracy, "macro_f1": score.macro_f1}
    said = ", ".join(f"{column} {100 * found['accuracy']:.1f}" for column, found in reached.items())
    print(f"{name}, {len(episode.query)} texts: {said}", flush=True)
    return {"n_way": episode.n_way, "n_texts": len(episode.query), "reached": reached}


def tables(rows: list[Row]) -> tuple[str, str]:
    """Markdown: accuracy and in brackets macro-F1, in %, the best bold; datasets of the tasks, then the wide ones."""
    plain = {str(row["set"]): row for row in rows if not row["described"]}
    said = {str(row["set"]): row["reached"] for row in rows if row["described"]}
    columns = [f"{each}, {read}" for read in ("names", "names and sentences") for each in ("frozen", "nlpmeta")]
    first = [f"| set | classes | {' | '.join(columns)} |", "|---" * 6 + "|"]
    second = [f"| set | classes | {' | '.join(columns[:2])} |", "|---" * 4 + "|"]
    for name, row in plain.items():
        start = f"| {SETS.get(name, f'`{name}`')} | {row['n_way']} | {_cells(row['reached'])}"
        if row["wide"]:
            second.append(f"{start} |")
        else:
            first.append(f"{start} | {_cells(said[name]) if name in said else ' | '} |")
    some = [row["reached"] for row in plain.values() if row["wide"]]
    if some:
        second.append(f"| mean of {len(some)} | | {_cells(_mean(some))} |")
    return "\n".join(first), "\n".join(second)


def _cells(reached: dict[str, dict[str, float]]) -> str:
    figures = [(reached[each]["accuracy"], reached[each]["macro_f1"]) for each in ("frozen", "auto@default")]
    cells = [f"{100 * accuracy:.1f} ({100 * macro_f1:.1f})" for accuracy, macro_f1 in figures]
    best = figures.index(max(figures))
    return " | ".join(f"**{cell}**" if i == best else cell for i, cell in enumerate(cells))


def _mean(some: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    figures = ("accuracy", "macro_f1")
    return {name: {each: float(np.mean([one[name][each] for one in some])) for each in figures} for name in COLUMNS}


if __name__ == "__main__":
    with torch.no_grad():
        typer.run(main)
