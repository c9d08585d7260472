"""What a step minimises: the episodes' loss, and beside it, if asked, two losses on all texts of the step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from nlpmeta.data import Episode
from nlpmeta.learners.base import Learner, Support
from nlpmeta.training.across import texts_of_all
from nlpmeta.training.mixing import mix, mixing_of
from nlpmeta.training.settings import TrainSettings
from nlpmeta.training.text_pass import KnownPass, TextPass


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
    total, said = episodic, episodic.detach()
    values = {"accuracy": accuracy, "episodic": float(episodic.detach())}
    if texts is not None and settings.contrastive_weight:
        classes = _class_of(episodes)
        every = texts_of_all(accelerator, texts.of(list(classes)), list(classes), list(classes.values()))
        contrastive = supervised_contrastive(*every, settings.contrastive_temperature)
        total = total + settings.contrastive_weight * accelerator.num_processes * contrastive
        said = said + settings.contrastive_weight * contrastive.detach()
        values["contrastive"] = float(contrastive.detach())
    if texts is not None and settings.anchor_weight:
        frozen = texts.frozen()
        anchor = torch.stack([anchor_loss(texts.of(_texts(e)), texts.of(_texts(e), frozen)) for e in episodes]).mean()
        total = total + settings.anchor_weight * anchor
        said = said + settings.anchor_weight * anchor.detach()
        values["anchor"] = float(anchor.detach())
    return Losses(total, {"loss": float(said), **values})


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
