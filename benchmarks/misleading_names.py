"""When one example a class should make `auto` doubt the names of the classes.

    python benchmarks/misleading_names.py --data-dir ../shared/data

On the one-shot tasks that the priors of `auto` are learned from, and on the same tasks with the names of another task
in place of their own: accuracy if names are never read, if they always are, and if they are unless the examples are
less likely under the names than by chance, by so much in the logarithm. The datasets and languages of the reported
results are not read.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from auto_tasks import AUXILIARY, Pools, table_of
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from nlpmeta.auto import method
from nlpmeta.auto.method import AutoHead
from nlpmeta.episodes import generator
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Embed, Support, Texts
from nlpmeta.learners.start import starting_learner

LEVELS = (0.0, 0.5, 1.0, 2.0, 3.0, 6.0)


@dataclass(frozen=True, eq=False)
class Drawn:
    """A one-shot task: the support with its names, the embeddings of the query and its labels."""

    family: str
    support: Support
    features: torch.Tensor
    labels: torch.Tensor


def drawn(auto: AutoHead, pools: Sequence[Pools], embed: Embed) -> list[Drawn]:
    """One-shot tasks of every family."""
    found = []
    for family in pools:
        for number in range(family.family.n_tasks):
            try:
                episode = family.task(number, 1)
            except NLPMetaError:  # too few texts of too many classes
                continue
            support = auto.support(episode.support, embed)
            if support.names is not None and support.stand_in is None:
                names = replace(support.names, features=embed(support.names.texts))
                whole = replace(support, names=names, features=embed(support.texts))
                labels = torch.tensor(episode.query.labels)
                found.append(Drawn(family.family.data, whole, embed(episode.query.texts), labels))
    return found


def renamed(tasks: Sequence[Drawn]) -> list[Drawn]:
    """The tasks with names of other families, as many as they have classes."""
    found = []
    for i, task in enumerate(tasks):
        others = [each for each in tasks if each.family != task.family and each.support.n_way >= task.support.n_way]
        if others:
            draw = generator(0, i, stream=11)
            other = others[int(draw.integers(len(others)))].support.names
            rows = draw.permutation(len(other))[: task.support.n_way].tolist()
            names = Texts(tuple(other.texts[row] for row in rows), other.features[rows])
            found.append(replace(task, support=replace(task.support, names=names)))
    return found


def accuracy(auto: AutoHead, tasks: Sequence[Drawn], *, names: bool) -> list[float]:
    """Of ``auto`` on each task, with or without names."""
    found = []
    for task in tasks:
        support = task.support if names else replace(task.support, names=None)
        state = auto.adapt_to(support, auto.judge(support))
        logits = auto.logits(state, Texts(("",) * len(task.features), task.features))
        found.append(float((logits.argmax(1) == task.labels).float().mean()))
    return found


def mean_of_families(tasks: Sequence[Drawn], values: Sequence[float]) -> float:
    """The mean over data sets of their means, in %."""
    by_family = defaultdict(list)
    for task, value in zip(tasks, values, strict=True):
        by_family[task.family].append(value)
    return 100 * float(np.mean([np.mean(each) for each in by_family.values()]))


def against(auto: AutoHead, task: Drawn) -> float:
    """How much less likely than by chance the names make the examples, in the logarithm."""
    return method.disbelief(auto.as_first_seen(task.support), auto.names_over(task.support.n_way))


def column(auto: AutoHead, tasks: Sequence[Drawn]) -> list[str]:
    """Accuracy if names are never read, always, and unless they are so much less likely than chance."""
    without, with_names = (accuracy(auto, tasks, names=names) for names in (False, True))
    doubt = [against(auto, task) for task in tasks]
    chosen = [without, with_names]
    for most in LEVELS:
        chosen.append([n if d <= most else w for n, w, d in zip(with_names, without, doubt, strict=True)])
    return [f"{mean_of_families(tasks, each):.1f}" for each in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--checkpoint", default="default", help="as in nlpmeta adapt")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    auto = starting_learner("auto", checkpoint=asked.checkpoint)
    table = Table("names are read", "own names", "names of another task", box=None)
    with threadpool_limits(limits=1), torch.no_grad():
        pools = [family.pools(asked.data_dir) for family in AUXILIARY]
        tasks = drawn(auto, pools, table_of(auto, pools))
        columns = [column(auto, some) for some in (tasks, renamed(tasks))]
    rows = ["never", "always", *(f"unless {level:g} less likely than chance" for level in LEVELS)]
    for row in zip(rows, *columns, strict=True):
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
