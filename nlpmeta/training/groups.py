"""Weight for the groups of tasks that are learned worst."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from nlpmeta.data import Episode

GroupBy = Literal["lang", "domain"]


def group_of(episode: Episode, by: GroupBy) -> str:
    """The language or domain of most query texts; empty where the data do not say."""
    column = episode.query.langs if by == "lang" else episode.query.domains
    return Counter(column).most_common(1)[0][0] if column else ""


class GroupWeights:
    """Groups whose loss is high come to count for more, by a factor of ``exp(rate * loss)`` a step, relative to others.

    Source: group DRO, Sagawa, Koh, Hashimoto and Liang, ICLR 2020 (arXiv:1911.08731), algorithm 1. Where we differ: a
    loss changes the weight of the steps after it, not of its own, and a group that comes up for the first time counts
    as much as the average.
    """

    def __init__(self, rate: float, logs: dict[str, Tensor]) -> None:
        """Start from ``logs``, the logarithm of each group's weight, which is kept up to date in place."""
        self._rate, self._logs = rate, logs

    def factor(self, group: str) -> float:
        """What the gradient of an episode of this group is multiplied by; 1 on average over the groups."""
        if group not in self._logs:
            return 1.0
        highest = max(map(float, self._logs.values()))
        shares = {name: math.exp(float(log) - highest) for name, log in self._logs.items()}
        return len(shares) * shares[group] / sum(shares.values())

    def update(self, losses: Iterable[tuple[str, float]]) -> None:
        """Note the losses of a step, of every process, in their order."""
        for group, loss in losses:
            before = self._logs.get(group)
            if before is None:
                known = [float(log) for log in self._logs.values()]
                highest = max(known, default=0.0)  # kept out of the exponential, which a high one would not fit into
                mean = sum(math.exp(log - highest) for log in known) / len(known) if known else 1.0
                before = torch.tensor(highest + math.log(mean))
            self._logs[group] = before + self._rate * loss
        mean = sum(map(float, self._logs.values())) / len(self._logs) if self._logs else 0.0
        for group in self._logs:  # only differences count; they stay small numbers this way
            self._logs[group] = self._logs[group] - mean
