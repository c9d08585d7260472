"""Zero examples: the names of the classes alone, and with a sentence about each, meta-trained and frozen.

    python benchmarks/names.py --data-dir ../shared/data              # make bench-names; what is done is not repeated
    python benchmarks/names.py --data-dir ../shared/data --only massive
    python benchmarks/names.py --show                                 # the tables again

Texts are those of the test split, of all there are without one, and of the train split for the wide sets that
recipes/wide.yaml reserves for model selection. The sentences in benchmarks/descriptions were written from the names of
the classes alone; no text of the data was read for them.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from wide import held_out_sets

from nlpmeta import LabeledTexts, load_source
from nlpmeta.encoder.table import EmbeddingTable, embeddings_folder
from nlpmeta.episodes import generator
from nlpmeta.episodes.kshot import NamesAlone
from nlpmeta.errors import DataError
from nlpmeta.learners.base import Learner
from nlpmeta.learners.start import starting_learner
from nlpmeta.metrics.scores import score_episode
from nlpmeta.sources.catalogue import catalogue
from nlpmeta.sources.loading import Descriptions
from nlpmeta.storage.files import write_json

RESULTS = Path("results/names.json")
SAID = Path(__file__).parent / "descriptions"
SETS = ("injongo:swa", "massive:sw", "massive:en", "sib200:swh_Latn", "banking77", "clinc150", "sms-spam")
COLUMNS = {
    "frozen": ("prototypical", "none"),
    "prototypical@default": ("prototypical", "default"),
    "auto@default": ("auto", "default"),
}
"""Method and checkpoint by the name of a column; without examples ``auto`` on the frozen encoder is its prototypes."""
Row = dict[str, object]


def main(
    *,
    data_dir: Annotated[Path, typer.Option(help="Folder with copies of public data sets.")] = Path("../shared/data"),
    only: Annotated[str, typer.Option(help="Only sets whose name contains this.")] = "",
    max_query: Annotated[int, typer.Option(help="Texts at most of each set.")] = 5000,
    show: Annotated[bool, typer.Option("--show", help="Print the tables and measure nothing.")] = False,
    out: Annotated[Path, typer.Option(help="Where the rows are written.")] = RESULTS,
) -> None:
    """Measure what is missing, a row at a time, and print the tables."""
    rows: list[Row] = json.loads(out.read_text(encoding="utf-8"))["rows"] if out.exists() else []
    done = {(row["set"], row["described"]) for row in rows}
    learners = {} if show else {name: starting_learner(m, checkpoint=c) for name, (m, c) in COLUMNS.items()}
    for name in () if show else (each for each in (*SETS, *held_out_sets()) if only in each):
        said = SAID / f"{name.partition(':')[0]}.csv"
        for described in (False, True) if said.exists() else (False,):
            if (name, described) in done:
                continue
            data = texts_of(name, data_dir, max_query)
            if described:
                data = Descriptions.of_file(said).added_to(data)
            rows.append(measured(name, data, learners, described=described))
            write_json(out, {"rows": rows})
    show_tables(rows)


def texts_of(name: str, data_dir: Path, max_query: int) -> LabeledTexts:
    """What is scored of a set: its classes, and at most so many of their texts."""
    data, _, lang = name.partition(":")
    source = load_source(data, data_dir=data_dir)
    held_back = data in catalogue() and catalogue()[data].collection == "wide"
    found = source.load(lang or None, "test" if "test" in source.splits() and not held_back else "train")
    if len(found) <= max_query:
        return found
    picked = generator(0, 0).choice(len(found), max_query, replace=False)
    return found.select(np.sort(picked).tolist())


def measured(name: str, data: LabeledTexts, learners: dict[str, Learner], *, described: bool) -> Row:
    """One row: what each column reaches. Without a name that says something there is nothing to reach."""
    episode = NamesAlone(data).episode(0)
    wide = name in held_out_sets()
    row: Row = {
        "set": name,
        "wide": wide,
        "described": described,
        "n_way": episode.n_way,
        "n_texts": len(episode.query),
    }
    reached: dict[str, dict[str, float]] = {}
    for column, learner in learners.items():
        try:
            score = score_episode(learner, episode, EmbeddingTable(learner.encoder, embeddings_folder()))
        except DataError as error:
            print(f"{name}: {error}", flush=True)
            return row | {"reached": {}, "why": str(error)}
        reached[column] = {"accuracy": score.accuracy, "macro_f1": score.macro_f1}
    said = ", ".join(f"{column} {100 * found['accuracy']:.1f}" for column, found in reached.items())
    print(f"{name}{', described' if described else ''}, {len(episode.query)} texts: {said}", flush=True)
    return row | {"reached": reached}


def show_tables(rows: list[Row]) -> None:
    """A line for each set, and the mean of those without descriptions; accuracy and macro-F1 in %."""
    table = Table("set", "classes", "texts", "read", *(f"{column} (F1)" for column in COLUMNS), box=None)
    for row in (row for row in rows if row["reached"]):
        read = "names and sentences" if row["described"] else "names"
        cells = [f"{100 * e['accuracy']:.1f} ({100 * e['macro_f1']:.1f})" for e in row["reached"].values()]
        table.add_row(row["set"], str(row["n_way"]), str(row["n_texts"]), read, *cells)
    for title, wide in (("mean of the wide sets", True), ("mean of the others", False)):
        some = [row["reached"] for row in rows if row["reached"] and not row["described"] and row["wide"] == wide]
        if some:
            means = [
                " ".join(
                    f"{100 * float(np.mean([each[column][figure] for each in some])):.1f}"
                    for figure in ("accuracy", "macro_f1")
                )
                for column in COLUMNS
            ]
            table.add_row(f"{title} ({len(some)})", "", "", "names", *means)
    Console(width=150).print(table)


if __name__ == "__main__":
    with torch.no_grad():
        typer.run(main)
