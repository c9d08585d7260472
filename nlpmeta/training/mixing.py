"""Further tasks from those that were drawn: classes that are mixtures of two."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from nlpmeta.data import Episode
from nlpmeta.learners.base import Support, Texts
from nlpmeta.sampling import generator

_STREAM = 6  # of random numbers, apart from those that draw episodes
_EVEN = 0.5  # both parameters of the beta distribution that shares are drawn from


def mixing_of(episode: Episode, *, share: float, seed: int) -> tuple[Tensor, float] | None:
    """Whether the classes of an episode are mixed: the partner of each class ``(n_way,)`` and the class's own share.

    A function of the episode and the seed alone, so that it does not depend on the number of processes.

    Args:
        episode: as it was drawn.
        share: of the episodes whose classes are mixed, 0 to 1.
        seed: of the run.
    """
    rng = generator(seed, int(episode.support.digest(), 16), stream=_STREAM)
    if rng.random() >= share or episode.n_way < 2:
        return None
    ring = rng.permutation(episode.n_way)
    partner = np.empty(episode.n_way, dtype=np.int64)
    partner[ring] = np.roll(ring, 1)
    own = float(rng.beta(_EVEN, _EVEN))
    return torch.from_numpy(partner), max(own, 1 - own)


def mix(side: Support, partner: Tensor, own: float) -> Support:
    """One side of an episode whose classes have become mixtures of two, embeddings and class names alike.

    Every text is mixed with one of the partner of its class: the first with the first, and round again where that has
    fewer. Labels stay: class ``k`` now means mostly ``k`` and for the rest ``partner[k]``.

    Source: MLTI, Yao, Zhang and Finn, ICLR 2022 (arXiv:2106.02695), equation 5 (tasks that share no labels). Where we
    differ: both classes come from one task, and pooled embeddings are mixed.

    Args:
        side: support or query, with embeddings.
        partner: another class for each, ``(n_way,)``.
        own: the share of the class itself, 0 to 1.
    """
    if side.features is None:
        raise ValueError("Only texts with embeddings can be mixed.")
    rows = [torch.nonzero(side.labels == label).flatten() for label in range(side.n_way)]
    other = torch.empty_like(side.labels)
    for label, mine in enumerate(rows):
        theirs = rows[int(partner[label])]
        other[mine] = theirs[torch.arange(len(mine), device=theirs.device) % len(theirs)]
    mixed = replace(side, features=side.features[other].lerp(side.features, own))
    if side.names is None or side.names.features is None:
        return mixed
    names = side.names.features[partner.to(side.labels.device)].lerp(side.names.features, own)
    return replace(mixed, names=Texts(side.names.texts, names))
