"""What a step minimises: the episodes' loss, and beside it, if asked, two losses on all texts of the step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from nlpmeta.data import Episode
from nlpmeta.episodes import generator
from nlpmeta.learners.base import Learner, Support, Texts
from nlpmeta.training import TrainSettings
from nlpmeta.training.passes import KnownPass, TextPass


@dataclass(frozen=True, eq=False)
class Losses:
    """What to minimise, shape ``()``, and what to log of its parts."""

    to_minimise: Tensor
    values: dict[str, float]


def losses(
    learner: Learner,
    episodes: Sequence[Episode],
    texts: TextPass | KnownPass | None,
    settings: TrainSettings,
    accelerator: Accelerator,
) -> Losses:
    """The episodes' loss plus the losses beside it that have a weight.

    Args:
        learner: what is trained.
        episodes: this process's share.
        texts: their embeddings, for a learner that takes embeddings.
        settings: the weights.
        accelerator: where the other processes are.
    """
    episodic, accuracy = episodic_loss(learner, episodes, texts, mix_share=settings.mix_share, seed=settings.seed)
    total, reported = episodic, episodic.detach()
    values = {"accuracy": accuracy, "episodic": float(episodic.detach())}
    if texts is not None and settings.contrastive_weight:
        classes = _class_of(episodes)
        every = texts_of_all(accelerator, texts.of(list(classes)), list(classes), list(classes.values()))
        contrastive = supervised_contrastive(*every, settings.contrastive_temperature)
        total = total + settings.contrastive_weight * accelerator.num_processes * contrastive
        reported = reported + settings.contrastive_weight * contrastive.detach()
        values["contrastive"] = float(contrastive.detach())
    if texts is not None and settings.anchor_weight:
        frozen = texts.frozen()
        anchor = torch.stack([anchor_loss(texts.of(_texts(e)), texts.of(_texts(e), frozen)) for e in episodes]).mean()
        total = total + settings.anchor_weight * anchor
        reported = reported + settings.anchor_weight * anchor.detach()
        values["anchor"] = float(anchor.detach())
    return Losses(total, {"loss": float(reported), **values})


def _texts(episode: Episode) -> tuple[str, ...]:
    return episode.support.texts + episode.query.texts


def _class_of(episodes: Sequence[Episode]) -> dict[str, str]:
    """The class name of each text; of its first episode where it is in several."""
    found: dict[str, str] = {}
    for episode in episodes:
        for part in (episode.support, episode.query):
            for text, name in zip(part.texts, part.names(), strict=True):
                found.setdefault(text, name)
    return found


def episodic_loss(
    learner: Learner,
    episodes: Sequence[Episode],
    texts: TextPass | KnownPass | None,
    *,
    mix_share: float = 0.0,
    seed: int = 0,
) -> tuple[Tensor, float]:
    """Mean loss over the episodes, shape ``()``, and the mean accuracy on their queries.

    Args:
        learner: what is trained.
        episodes: the tasks.
        texts: their embeddings, for a learner that takes embeddings.
        mix_share: share of the episodes whose classes become mixtures of two; 0 for a learner that takes tokens.
        seed: decides which, and how.
    """
    tasks = [_sides(learner, episode, texts) for episode in episodes]
    if mix_share and texts is not None:
        ways = [mixing_of(episode, share=mix_share, seed=seed) for episode in episodes]
        tasks = [
            task if way is None else (mix(task[0], *way), mix(task[1], *way))
            for task, way in zip(tasks, ways, strict=True)
        ]
    found = learner.batch_loss(tasks)
    return found.loss, found.accuracy


def _sides(learner: Learner, episode: Episode, texts: TextPass | KnownPass | None) -> tuple[Support, Support]:
    support = learner.support(episode.support, None if texts is None else texts.of)
    query = Support.of(episode.query, None if texts is None else texts.of(episode.query.texts))
    return support, replace(query, labels=query.labels.to(learner.encoder.device))


def supervised_contrastive(features: Tensor, classes: Sequence[str], temperature: float) -> Tensor:
    """Pulls texts of one class together and all others apart, shape ``()``.

    Source: Khosla et al., NeurIPS 2020 (arXiv:2004.11362), equation 2 (the sum outside the logarithm). Where we differ:
    texts that are alone in their class only serve as negatives.

    Args:
        features: unit vectors ``(n, dim)``.
        classes: the class of each.
        temperature: what cosines are divided by.
    """
    number = {name: i for i, name in enumerate(dict.fromkeys(classes))}
    labels = torch.tensor([number[name] for name in classes], device=features.device)
    unit = F.normalize(features.float(), dim=1)
    itself = torch.eye(len(labels), dtype=torch.bool, device=features.device)
    scores = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf)
    log_shares = scores - scores.logsumexp(1, keepdim=True)
    positive = (labels.unsqueeze(0) == labels.unsqueeze(1)) & ~itself
    count = positive.sum(1)
    per_text = -log_shares.masked_fill(~positive, 0).sum(1) / count.clamp(min=1)
    return per_text[count > 0].mean() if bool((count > 0).any()) else features.sum() * 0


def anchor_loss(features: Tensor, frozen: Tensor) -> Tensor:
    """Mean of one minus the cosine between new and frozen embeddings ``(n, dim)``, shape ``()``."""
    return (1 - F.cosine_similarity(features.float(), frozen.float(), dim=1)).mean()


def texts_of_all(
    accelerator: Accelerator, features: Tensor, texts: Sequence[str], classes: Sequence[str]
) -> tuple[Tensor, list[str]]:
    """Embeddings ``(n, dim)`` and classes of the distinct texts of all processes, in the order of the processes.

    Gradients flow into this process's own ``features`` only. Every process then computes the same loss from the same
    numbers, and the sum of the gradients over the processes is the gradient of that one loss; as gradients are averaged
    later, such a loss has to be multiplied by the number of processes.
    """
    if accelerator.num_processes == 1:
        return features, list(classes)
    from accelerate.utils import gather_object, pad_across_processes

    sizes: list[int] = gather_object([len(texts)])
    padded = accelerator.gather(pad_across_processes(features.detach(), dim=0))
    parts = [part[:size] for part, size in zip(padded.split(max(sizes)), sizes, strict=True)]
    parts[accelerator.process_index] = features
    found: list[tuple[str, str]] = gather_object(list(zip(texts, classes, strict=True)))
    first: dict[str, int] = {}
    for row, (text, _) in enumerate(found):
        first.setdefault(text, row)
    rows = torch.tensor(list(first.values()), device=features.device)
    return torch.cat(parts).index_select(0, rows), [found[row][1] for row in first.values()]


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
