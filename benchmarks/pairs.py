"""Pairs of texts: do two questions ask for the same?

    python benchmarks/pairs.py --data-dir ../shared/data             # MASSIVE en, on which the features were chosen
    python benchmarks/pairs.py --data-dir ../shared/data --held-out  # BANKING77

Each pair holds two texts of the test split (of the train split where the choice is made) with the same intent or with
two intents. Methods learn from K pairs of each kind and are scored on pairs of intents that none of these has. Beside
them: logistic regression on both embeddings alone, and on their cosine alone. Each text is embedded once for all.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from sklearn.linear_model import LogisticRegression

from nlpmeta import LabeledTexts, load_source
from nlpmeta.data.inputs import BETWEEN, Pair
from nlpmeta.encoder.parts import paired, view_width
from nlpmeta.encoder.table import EmbeddingTable, embeddings_folder
from nlpmeta.episodes import generator
from nlpmeta.learners.base import Embed
from nlpmeta.learners.start import of_pairs, starting_learner
from nlpmeta.metrics.scores import Interval

RESULTS = Path("results/pairs.json")
METHODS = ("auto", "logistic", "ridge", "prototypical")
N_SHOTS, N_PAIRS = (5, 10, 50), 200


def main(
    *,
    data_dir: Annotated[Path, typer.Option(help="Folder with copies of public data sets.")],
    held_out: Annotated[bool, typer.Option("--held-out", help="The set that is reported.")] = False,
    draws: Annotated[int, typer.Option(help="Draws of each number of pairs.")] = 10,
    out: Annotated[Path, typer.Option(help="Where the rows are written.")] = RESULTS,
) -> None:
    """Draw pairs, adapt, score."""
    name, lang, split = ("banking77", "en", "test") if held_out else ("massive", "en", "train")
    data = load_source(name, data_dir=data_dir).load(lang, split)
    found: dict[str, dict[int, list[float]]] = {}
    learners = {method: of_pairs(starting_learner(method)) for method in METHODS}
    width, embed = starting_learner("logistic").encoder.dim, embedded()
    embeds = {method: embed if method == "auto" else first_view(embed, width) for method in METHODS}
    for draw in range(draws):
        support, query = drawn(data, draw)
        for n_shot in N_SHOTS:
            part = first(support, n_shot)
            for method, learner in learners.items():
                state = learner.adapt(learner.support(part, embeds[method]))
                guesses = learner.logits(state, learner.support(query, embeds[method])).argmax(1).cpu().numpy()
                found.setdefault(method, {}).setdefault(n_shot, []).append(float((guesses == query.labels).mean()))
            for plain, rows in (("both embeddings alone", both), ("cosine alone", cosine)):
                head = LogisticRegression(C=100, max_iter=2000).fit(rows(embed(part.texts), width), part.labels)
                right = head.score(rows(embed(query.texts), width), query.labels)
                found.setdefault(plain, {}).setdefault(n_shot, []).append(float(right))
    for method, each in found.items():
        typer.echo(f"{method}: " + ", ".join(f"{n} pairs {Interval.of(each[n]).percent()} %" for n in N_SHOTS))
    kept = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({**kept, f"{name} {lang} {split}": found}, indent=1), encoding="utf-8")


def embedded() -> Embed:
    """The embeddings of pairs as ``auto`` gets them: in the adapted view, then in the frozen one."""
    table = EmbeddingTable(starting_learner("auto").encoder, embeddings_folder())
    return lambda pairs: paired(table([half for pair in pairs for half in pair.split(BETWEEN)]), n_views=2)


def first_view(embed: Embed, width: int) -> Embed:
    """The adapted view alone; ``width`` is that of a text."""
    return lambda pairs: embed(pairs)[:, : view_width(width, True)]


def both(features: torch.Tensor, width: int) -> "np.ndarray":
    """The embeddings of both texts, each so wide."""
    return features[:, : 2 * width].cpu().numpy()


def cosine(features: torch.Tensor, width: int) -> "np.ndarray":
    """The cosine of both texts."""
    one, other = features[:, :width], features[:, width : 2 * width]
    return (one * other).sum(1, keepdim=True).cpu().numpy()


def drawn(data: LabeledTexts, draw: int) -> tuple[LabeledTexts, LabeledTexts]:
    """Pairs to learn from, and pairs of other classes to score."""
    rng = generator(0, draw)
    by_class = [
        [text for text, label in zip(data.texts, data.labels, strict=True) if label == i] for i in range(data.n_way)
    ]
    order = [i for i in rng.permutation(data.n_way).tolist() if len(by_class[i]) > 1]
    parts = order[: len(order) // 2], order[len(order) // 2 :]
    found = []
    for classes, n in zip(parts, (2 * max(N_SHOTS), N_PAIRS), strict=True):
        pairs, names = [], []
        for number in range(n):
            one, other = rng.choice(classes, 2, replace=False).tolist()
            texts = rng.choice(by_class[one], 2, replace=False).tolist()
            second = texts[1] if number % 2 else str(rng.choice(by_class[other]))
            pairs.append(Pair.of(texts[0], second))
            names.append("same" if number % 2 else "different")
        found.append(LabeledTexts.from_names(pairs, names))
    return found[0], found[1]


def first(support: LabeledTexts, n_shot: int) -> LabeledTexts:
    """The first pairs of each kind, which take turns."""
    return support.select(list(range(2 * n_shot)))


if __name__ == "__main__":
    with torch.no_grad():
        typer.run(main)
