"""What engines and peers cost in accuracy on five sets: part of results/speed.json.

    python benchmarks/speed_accuracy.py --data-dir ../shared/data               # our engines; what is done is kept
    python benchmarks/speed_accuracy.py --peers-python .peers/bin/python        # and the peers'

Five examples a class, seed 0, three draws, at most 500 texts of the test split. ``auto`` is the default method on the
packaged checkpoint. Fitted on float32 embeddings it predicts with those of each engine, and ``both`` says what it
reaches where support and queries go through that engine. ``logistic`` is logistic regression on the frozen encoder,
the head that the peers are given too.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import torch
import typer
from curves import episodes, material
from speed import RESULTS, read_results, write_part
from speed_peers import Row, Worker, missing, peers_folder
from speed_side import SIDES

from nlpmeta import Episode
from nlpmeta.encoder.compiling import embedding_with
from nlpmeta.encoder.table import EmbeddingTable, embeddings_folder
from nlpmeta.encoder.views import FROZEN
from nlpmeta.learners.base import Embed, Learner, TaskState, Texts
from nlpmeta.learners.start import starting_learner

SETS = ("injongo:swa", "massive:sw", "sib200:swh_Latn", "banking77", "sms-spam")
ENGINES = ("torch", "onnx", "onnx-int8")
SHOTS, DRAWS = "5", 3


def main(
    *,
    data_dir: Annotated[Path, typer.Option(help="Folder with copies of public data sets.")] = Path("../shared/data"),
    peers_python: Annotated[Path | None, typer.Option(help="Interpreter that has the peers.")] = None,
    only: Annotated[str, typer.Option(help="Only sides whose name contains this.")] = "",
    show_only: Annotated[bool, typer.Option("--show", help="Print what there is.")] = False,
    out: Annotated[Path, typer.Option(help="Where the rows are written.")] = RESULTS,
) -> None:
    """Measure what is missing, a set and a side at a time."""
    torch.set_num_threads(1)
    rows: list[Row] = read_results(out).get("accuracy", [])
    if not show_only:
        auto, plain = starting_learner("auto").eval(), starting_learner("logistic", checkpoint="none").eval()
        drawn = {name: list(episodes(*material(name, data_dir), SHOTS, DRAWS)) for name in SETS}
        for engine in (each for each in ENGINES if only in f"nlpmeta {each}"):
            for name in SETS:
                if not any(row["side"] == f"nlpmeta {engine}" and row["set"] == name for row in rows):
                    rows += of_engine(engine, name, drawn[name], auto, plain)
                    write_part("accuracy", rows, out)
        for side in (each for each in SIDES if only in each and not each.startswith("nlpmeta")):
            if any(row["side"] == side for row in rows) or missing(side, peers_python) or side == "setfit onnx":
                continue  # whose graph ends in its head: the same body as the others'
            rows += of_peer(side, peers_python, drawn, plain)
            write_part("accuracy", rows, out)
    show(rows)


def of_engine(engine: str, name: str, drawn: Sequence[Episode], auto: Learner, plain: Learner) -> list[Row]:
    """A row for each draw of a set and each method."""
    exact = EmbeddingTable(auto.encoder, embeddings_folder())
    table = exact if engine == "torch" else EmbeddingTable(auto.encoder)
    frozen = auto.encoder.columns(FROZEN)  # type: ignore[attr-defined]  # a ScaledEncoder
    rows: list[Row] = []
    with embedding_with(engine):  # type: ignore[arg-type]
        for draw, episode in enumerate(drawn):
            state = auto.adapt(auto.support(episode.support, exact))
            found = {
                "auto": share(auto, state, episode, table),
                "both": share(auto, auto.adapt(auto.support(episode.support, table)), episode, table),
                "logistic": fitted(plain, episode, lambda texts: table(texts)[:, frozen]),
            }
            views = len(auto.predictor(state).adapter_scales)
            rows.append({"side": f"nlpmeta {engine}", "set": name, "draw": draw, "views": views} | found)
            print(f"{engine}, {name}, draw {draw}: " + ", ".join(f"{k} {100 * v:.1f}" for k, v in found.items()))
    return rows


def of_peer(side: str, python: Path | None, drawn: Mapping[str, Sequence[Episode]], plain: Learner) -> list[Row]:
    """A row for each draw of each set: the embeddings of a peer under the logistic head."""
    every = [each for some in drawn.values() for episode in some for each in episode.texts()]
    texts = sorted(set(every), key=len)
    with TemporaryDirectory() as place, Worker(side, python, peers_folder(), threads=1) as worker:
        (Path(place) / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
        worker.ask(texts=f"{place}/texts.json", embed=f"{place}/found.npy")
        vectors, at = torch.from_numpy(np.load(f"{place}/found.npy")), {text: row for row, text in enumerate(texts)}
    rows: list[Row] = []
    for name, some in drawn.items():
        for draw, episode in enumerate(some):
            found = fitted(plain, episode, lambda texts: vectors[[at[text] for text in texts]])
            rows.append({"side": side, "set": name, "draw": draw, "logistic": found})
            print(f"{side}, {name}, draw {draw}: logistic {100 * found:.1f}")
    return rows


def fitted(plain: Learner, episode: Episode, embed: Embed) -> float:
    """The accuracy of a learner on these embeddings."""
    return share(plain, plain.adapt(plain.support(episode.support, embed)), episode, embed)


def share(learner: Learner, state: TaskState, episode: Episode, embed: Embed) -> float:
    """The share of the query that is labelled right."""
    texts = episode.query.texts
    found = learner.predictor(state).logits(Texts(texts, embed(texts))).argmax(1)
    return float((found == torch.tensor(episode.query.labels)).float().mean())


def means(rows: Sequence[Row], method: str) -> dict[str, dict[str, float]]:
    """By side and set: the mean accuracy over draws in %."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if method in row:
            found.setdefault(str(row["side"]), {}).setdefault(str(row["set"]), []).append(100 * float(str(row[method])))
    return {side: {name: float(np.mean(each)) for name, each in sets.items()} for side, sets in found.items()}


def show(rows: Sequence[Row]) -> None:
    """Markdown: a line for each side and method; accuracy in %."""
    print(f"| side | method | {' | '.join(SETS)} | mean |")
    print("|---" * (len(SETS) + 3) + "|")
    for method in ("auto", "both", "logistic"):
        for side, found in means(rows, method).items():
            cells = [f"{found[name]:.1f}" if name in found else "" for name in SETS]
            print(f"| {side} | {method} | {' | '.join(cells)} | {np.mean(list(found.values())):.1f} |")


if __name__ == "__main__":
    with torch.no_grad():
        typer.run(main)
