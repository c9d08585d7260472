"""Accuracy and seconds where texts are long: the first 128 tokens, the first 512, and windows over more.

    python benchmarks/long_texts.py --data-dir ../shared/data            # train splits
    python benchmarks/long_texts.py --data-dir ../shared/data --held-out # held-out sets

Without the option: train splits of MasakhaNEWS (Luganda, Nigerian Pidgin). With it: its test splits in Swahili and
Hausa, Setswana news, and the second part of SpamAssassin, which the shipped checkpoint has seen in training.
MasakhaNEWS (https://github.com/masakhane-io/masakhane-news) is read from
``masakhanews/LANG/SPLIT.jsonl`` below ``--news``, headline and text with a line break between them.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer

from nlpmeta import KShotSampler, LabeledTexts
from nlpmeta.encoder.parts import Longer
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.episodes import generator
from nlpmeta.learners.base import Learner
from nlpmeta.learners.start import rebuilt, starting_learner
from nlpmeta.metrics.scores import Interval, score_episode

RESULTS = Path("results/long_texts.json")
READINGS = {"128": (128, 128), "512": (512, 512), "512 in windows": (512, 128)}
"""The tokens that are read of a text, and those that go through at once."""
N_SHOTS, N_TEXTS, N_WAY = (5, 10), 48, 3  # few enough that a set takes minutes


def main(
    *,
    data_dir: Annotated[Path, typer.Option(help="Folder with copies of public data sets.")],
    news: Annotated[Path, typer.Option("--news", help="Folder with masakhanews/LANG/SPLIT.jsonl.")] = Path("../news"),
    held_out: Annotated[bool, typer.Option("--held-out", help="The sets that are reported.")] = False,
    draws: Annotated[int, typer.Option(help="Draws of each set.")] = 20,
    method: Annotated[str, typer.Option(help="The method that adapts.")] = "logistic",
    only: Annotated[str | None, typer.Option(help="Only this set.")] = None,
    out: Annotated[Path, typer.Option(help="Where the rows are written.")] = RESULTS,
) -> None:
    """Draw, adapt, score."""
    part = "held-out" if held_out else "chosen on"
    kept = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    plain = starting_learner(method)
    for name, data in sets(data_dir, news, held_out=held_out):
        if only not in (None, name):
            continue
        found = kept.setdefault(part, {}).setdefault(name, {})
        chosen = Longer.of(plain.encoder, data.texts)
        found["chosen"] = None if chosen is None else chosen.json()
        for reading, (max_length, window) in READINGS.items():
            rows = measured(rebuilt(plain, plain.encoder.reading(max_length, window)), data, draws)
            found[reading] = rows
            typer.echo(f"{name}, {reading} tokens: {said(rows)}")
        out.parent.mkdir(exist_ok=True)
        out.write_text(json.dumps(kept, indent=1), encoding="utf-8")


def said(rows: dict[str, float | list[float]]) -> str:
    """A line of figures."""
    each = [f"{n_shot} shots {Interval.of(rows[str(n_shot)]).percent()} %" for n_shot in N_SHOTS]  # type: ignore[arg-type]
    return f"{', '.join(each)}; {rows['seconds']:.0f} CPU s to embed {rows['texts']} texts"


def measured(learner: Learner, data: LabeledTexts, draws: int) -> dict[str, float | list[float]]:
    """Accuracy of each draw by the number of shots, and the CPU seconds that embedding took."""
    table, start = EmbeddingTable(learner.encoder), time.process_time()
    table.prime(list(data.texts))
    rows: dict[str, float | list[float]] = {"seconds": time.process_time() - start, "texts": len(set(data.texts))}
    for n_shot in N_SHOTS:
        sampler = KShotSampler(data, n_shot=n_shot, seed=0)
        rows[str(n_shot)] = [score_episode(learner, sampler.episode(i), table).accuracy for i in range(draws)]
    return rows


def sets(data_dir: Path, news: Path, *, held_out: bool) -> Iterator[tuple[str, LabeledTexts]]:
    """The data sets by name, cut to a size that takes minutes."""
    folder, spam, wide = news / "masakhanews", data_dir / "spam" / "spamassassin", data_dir / "wide"
    places = {
        "masakhanews:lug": [folder / "lug" / "train.jsonl"],
        "masakhanews:pcm": [folder / "pcm" / "train.jsonl"],
    }
    if held_out:
        places = {
            "masakhanews:swa": [folder / "swa" / "test.jsonl"],
            "spamassassin, part 2": [spam / f"{each}-2.jsonl" for each in ("easy-ham", "spam")],
            "masakhanews:hau": [folder / "hau" / "test.jsonl"],
            "dikgang-news": [wide / "dikgang_news" / "tsn" / f"{each}.jsonl" for each in ("train", "test")],
        }
    for name, files in places.items():
        rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
        yield name, drawn([str(row["text"]) for row in rows], [str(row["label"]) for row in rows])


def drawn(texts: list[str], names: list[str]) -> LabeledTexts:
    """About ``N_TEXTS`` texts, as many of each of the ``N_WAY`` largest classes."""
    order = generator(0, 0).permutation(len(texts)).tolist()
    counts = {name: names.count(name) for name in sorted(set(names))}
    largest = sorted(counts, key=lambda name: -counts[name])[:N_WAY]
    rows = [row for name in largest for row in [i for i in order if names[i] == name][: N_TEXTS // len(largest)]]
    return LabeledTexts.from_names([texts[row] for row in rows], [names[row] for row in rows])


if __name__ == "__main__":
    with torch.no_grad():
        typer.run(main)
