"""The gain from ten labels suggested by ``adapt --suggest``, compared with ten labels drawn at random.

    python benchmarks/suggest.py --data-dir ../shared/data              # on the auxiliary tasks: for model selection
    python benchmarks/suggest.py --data-dir ../shared/data --held-out   # on the tasks that are reported
    python benchmarks/suggest.py --show                                 # reprint the tables

Each task has 1, 2, 3 or 5 examples per class and up to 400 unlabelled texts of its classes. ``auto`` is adapted to the
examples, and again to them plus ten labelled texts: drawn at random (the mean of three draws), those whose label is
least certain, those of BADGE, and those returned by ``most_worth_labelling``. Scored on the query set.
"""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from auto_tasks import AUXILIARY, HELD_OUT, Pools, table_of
from rich.console import Console
from rich.table import Table
from running import in_two_parts
from torch import Tensor

from nlpmeta.auto.answers import most_worth_labelling
from nlpmeta.auto.method import AutoHead
from nlpmeta.data import LabeledTexts
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.episodes import generator
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import TaskState, Texts
from nlpmeta.learners.start import starting_learner

RESULTS = Path("results/suggest.json")
SHOTS, LABELS, DRAWS = (1, 2, 3, 5), 10, 3
MOST_SUPPORT, MOST_POOL, FEWEST_POOL, TASKS = 160, 400, 40, 6
Row = dict[str, object]


def badge(probabilities: Tensor, features: Tensor) -> list[int]:
    """Ash et al., ICLR 2020, algorithm 1 (arXiv:1906.03671): k-means++ over gradients of the last layer."""
    rng = np.random.default_rng(0)
    residual, features = probabilities.double().clone(), features.double()
    residual[torch.arange(len(residual)), residual.argmax(1)] -= 1  # the gradient is its product with the embedding
    lengths = residual.square().sum(1) * features.square().sum(1)
    nearest, chosen = torch.full_like(lengths, float("inf")), [int(lengths.argmax())]
    while len(chosen) < LABELS:
        shared = (residual @ residual[chosen[-1]]) * (features @ features[chosen[-1]])
        nearest = torch.minimum(nearest, (lengths + lengths[chosen[-1]] - 2 * shared).clamp(min=0))
        nearest[chosen] = 0
        chosen.append(int(rng.choice(len(residual), p=(nearest / nearest.sum()).numpy())))
    return chosen


CHOICES: dict[str, Callable[[Tensor, Tensor], list[int]]] = {
    "least certain": lambda probabilities, _: probabilities.max(1).values.argsort()[:LABELS].tolist(),
    "BADGE": badge,
    "suggested": lambda probabilities, features: most_worth_labelling(probabilities, features, most=LABELS),
}


def one_task(auto: AutoHead, pools: Pools, table: EmbeddingTable, number: int, n_shot: int) -> Row | None:
    """Accuracy with the examples alone, and with ten labels more, by who chose them."""
    try:
        episode = pools.task(number, n_shot)
    except NLPMetaError:  # too few texts of too many classes
        return None
    known, names = {*episode.support.texts, *episode.query.texts}, set(episode.support.label_names)
    rows = [i for i, name in enumerate(pools.pool.names()) if name in names and pools.pool.texts[i] not in known]
    if len(episode.support) > MOST_SUPPORT or len(rows) < FEWEST_POOL:
        return None
    rows = generator(number, 1, stream=8).permutation(rows)[:MOST_POOL].tolist()
    unlabelled = pools.pool.select(rows)
    queries, labels = Texts(episode.query.texts, table(episode.query.texts)), torch.tensor(episode.query.labels)

    def adapted(support: LabeledTexts) -> tuple[TaskState, float]:
        state = auto.adapt(auto.support(support, table))
        return state, float((auto.logits(state, queries).argmax(1) == labels).double().mean())

    state, before = adapted(episode.support)
    features = table(unlabelled.texts)
    probabilities = auto.logits(state, Texts(unlabelled.texts, features)).float().softmax(1)
    row: Row = {"set": pools.family.data, "n_way": episode.n_way, "n_shot": n_shot, "before": before}
    draws = [generator(number, i, stream=9).permutation(len(rows))[:LABELS].tolist() for i in range(DRAWS)]
    row["random"] = float(np.mean([adapted(_with(episode.support, unlabelled, each))[1] for each in draws]))
    for name, choose in CHOICES.items():
        row[name] = adapted(_with(episode.support, unlabelled, choose(probabilities, features)))[1]
    return row


def _with(support: LabeledTexts, pool: LabeledTexts, rows: list[int]) -> LabeledTexts:
    place = {name: label for label, name in enumerate(support.label_names)}
    names = pool.names()
    texts = support.texts + tuple(pool.texts[row] for row in rows)
    return LabeledTexts(texts, support.labels + tuple(place[names[row]] for row in rows), support.label_names)


def measure(held_out: bool, data_dir: Path) -> list[Row]:
    auto = starting_learner("auto")
    if not isinstance(auto, AutoHead):
        raise SystemExit("The method 'auto' is another one than this measures.")
    rows: list[Row] = []
    for family in HELD_OUT if held_out else AUXILIARY:
        pools = family.pools(data_dir)
        table = table_of(auto, [pools])
        tasks = [(number, n_shot) for number in range(TASKS) for n_shot in SHOTS]
        found = [row for each in tasks if (row := one_task(auto, pools, table, *each)) is not None]
        print(f"{family.name}: {len(found)} tasks", flush=True)
        rows += found
    return rows


def show(part: str, rows: list[Row]) -> None:
    """Means by set, and how much better than random each choice is, with the standard error over tasks."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[str(row["set"])].append(row)
    columns = ("before", "random", *CHOICES)
    table = Table("set", "tasks", *columns, *(f"{name} - random" for name in CHOICES))
    for name, some in [*groups.items(), ("all", rows)]:
        values = {each: np.asarray([100 * float(str(row[each])) for row in some]) for each in columns}
        gains = [values[each] - values["random"] for each in CHOICES]
        table.add_row(
            name,
            str(len(some)),
            *(f"{values[each].mean():.1f}" for each in columns),
            *(f"{gain.mean():+.1f} ± {gain.std(ddof=1) / len(gain) ** 0.5:.1f}" for gain in gains),
        )
    Console(width=140).print(part, table)


if __name__ == "__main__":
    in_two_parts(measure, show, RESULTS, __doc__)
