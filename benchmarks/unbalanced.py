"""The effect of imbalanced supports on ``auto``, and how much of the advantage of large classes to remove.

    python benchmarks/unbalanced.py --data-dir ../shared/data              # on the auxiliary tasks: for model selection
    python benchmarks/unbalanced.py --data-dir ../shared/data --held-out   # on the tasks that are reported

Each task draws a number of examples for each class at random from a short list, the smallest at least once. Accuracy on
the query texts is weighted in two ways: as if all classes were equally frequent, and as if each were as frequent as in
the support. ``fewest`` subsamples every class to the size of the smallest.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from auto_tasks import AUXILIARY, HELD_OUT, Pools, table_of
from rich.console import Console
from rich.table import Table
from running import in_two_parts
from torch import Tensor

from nlpmeta.auto import judging
from nlpmeta.auto.method import AutoHead
from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.episodes import generator
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Embed, Texts
from nlpmeta.learners.start import starting_learner

RESULTS = Path("results/unbalanced.json")
COUNTS = {"1 to 8": (1, 1, 2, 3, 5, 8), "2 to 10": (2, 2, 3, 5, 8, 10), "3 or 10": (3, 10), "16 or 60": (16, 60)}
BALANCES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
FEWEST = "fewest"
MOST_SUPPORT, TASKS = 160, 4
Row = dict[str, object]


def unequal(pools: Pools, number: int, counts: Sequence[int]) -> tuple[Episode, LabeledTexts, LabeledTexts] | None:
    """A task, its unequal support, and the same with as many examples of each class as the smallest has."""
    episode = _task(pools, number, max(counts)) or _task(pools, number, pools.family.max_shot)
    if episode is None:
        return None
    rng, labels = generator(pools.family.seed + number, max(counts), stream=11), np.asarray(episode.support.labels)
    drawn = rng.choice(counts, episode.n_way)
    drawn[int(rng.integers(episode.n_way))] = counts[0]
    if episode.n_way == 2:
        drawn = rng.permutation([counts[0], counts[-1]])
    rows = [np.flatnonzero(labels == label) for label in range(episode.n_way)]
    support = _select(episode.support, [row[:n] for row, n in zip(rows, drawn, strict=True)])
    fewest = _select(episode.support, [row[: counts[0]] for row in rows])
    if len(support) > MOST_SUPPORT or min(map(len, rows)) < counts[0] or len(support) == len(fewest):
        return None
    return episode, support, fewest


def _task(pools: Pools, number: int, n_shot: int) -> Episode | None:
    try:
        return pools.task(number, n_shot)
    except NLPMetaError:  # too few texts of too many classes
        return None


def _select(data: LabeledTexts, rows: Sequence["np.typing.NDArray[np.int64]"]) -> LabeledTexts:
    return data.select(sorted(int(row) for each in rows for row in each))


def scores(auto: AutoHead, support: LabeledTexts, queries: Texts, embed: Embed, balance: float) -> Tensor:
    """Log probabilities of the query with so much of the lead taken back."""
    judging.BALANCE = balance
    return auto.logits(auto.adapt(auto.support(support, embed)), queries).double().log_softmax(1)


def measured(
    auto: AutoHead, pools: Pools, embed: Embed, balances: Sequence[float]
) -> Iterator[tuple[str, dict[str, list[float]]]]:
    """For each task: accuracy and negative log-likelihood, both weighted in both ways, by what is done."""
    for name, counts in COUNTS.items():
        for number in range(TASKS):
            found = unequal(pools, number, counts)
            if found is None:
                continue
            episode, support, fewest = found
            queries = Texts(episode.query.texts, embed(episode.query.texts))
            labels = torch.tensor(episode.query.labels)
            there = torch.bincount(labels, minlength=episode.n_way).clamp(min=1)
            each = {f"{b:g}": scores(auto, support, queries, embed, b) for b in balances}
            each[FEWEST] = scores(auto, fewest, queries, embed, 0.0)
            frequent = torch.bincount(torch.tensor(support.labels), minlength=episode.n_way)
            shares = [share / there for share in (torch.ones(episode.n_way), frequent)]
            yield name, {done: figures(found_scores, labels, shares) for done, found_scores in each.items()}


def figures(log_probabilities: Tensor, labels: Tensor, shares: Sequence[Tensor]) -> list[float]:
    """Accuracy and negative log-likelihood, with each text counting as the share of its class says, for all shares."""
    right = (log_probabilities.argmax(1) == labels).double()
    loss = -log_probabilities[torch.arange(len(labels)), labels]
    weights = [share[labels].double() / share[labels].double().sum() for share in shares]
    return [float(value @ each) for each in weights for value in (right, loss)]


def measure(held_out: bool, data_dir: Path) -> dict[str, list[Row]]:
    auto = starting_learner("auto")
    if not isinstance(auto, AutoHead):
        raise SystemExit("The method 'auto' is another one than this measures.")
    found: dict[str, list[Row]] = defaultdict(list)
    chosen = judging.BALANCE
    balances = (0.0, chosen) if held_out else BALANCES
    for family in HELD_OUT if held_out else AUXILIARY:
        pools = family.pools(data_dir)
        for name, row in measured(auto, pools, table_of(auto, [pools]), balances):
            found[name].append({"set": family.data, **row})
        print(f"{family.name}: {sum(map(len, found.values()))} tasks so far", flush=True)
    judging.BALANCE = chosen
    return {name: means_by_set(rows) for name, rows in found.items()}


def means_by_set(rows: Sequence[Row]) -> list[Row]:
    """One row for each set: its number of tasks and the means over them."""
    found = []
    for name in dict.fromkeys(row["set"] for row in rows):
        some = [row for row in rows if row["set"] == name]
        done = [key for key in some[0] if key != "set"]
        means = {key: np.asarray([row[key] for row in some]).mean(0).round(4).tolist() for key in done}
        found.append({"set": name, "tasks": len(some), **means})
    return found


def show(part: str, found: dict[str, list[Row]]) -> None:
    """A table of means over tasks."""
    columns = (f"{name} {weights}" for weights in ("equal", "as support") for name in ("acc", "nll"))
    table = Table("examples", "tasks", "taken back", *columns)
    for name, rows in found.items():
        tasks = [int(str(row["tasks"])) for row in rows]
        for done in (key for key in rows[0] if key not in ("set", "tasks")):
            means = np.average(np.asarray([row[done] for row in rows]), axis=0, weights=tasks)
            right, loss, right_there, loss_there = means.tolist()
            figures = (f"{100 * right:.1f}", f"{loss:.3f}", f"{100 * right_there:.1f}", f"{loss_there:.3f}")
            table.add_row(name, str(sum(tasks)), done, *figures)
    Console(width=120).print(part, table)


if __name__ == "__main__":
    in_two_parts(measure, show, RESULTS, __doc__)
