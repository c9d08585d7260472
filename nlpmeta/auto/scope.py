"""Texts that belong to none of the classes: how unlike the support set they are, and how undecided the scores."""

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.auto.mixture import likeness
from nlpmeta.encoder.merged import Guard
from nlpmeta.errors import ModelFolderError
from nlpmeta.storage.files import read_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nlpmeta.auto.mixture import Mixture
    from nlpmeta.encoder.text_encoder import TextEncoder

N_CLUES = 5
WEIGHTS_FILE = Path(__file__).parent / "scope.json"
"""Weights of ``near_clues``, which ``benchmarks/learn_scope.py`` learns."""


def scope_clues(
    log_probabilities: Tensor, features: Tensor, prototypes: Tensor, *, n_views: int, n_shot: float
) -> Tensor:
    """What speaks for a text being in scope, ``(n, N_CLUES)``, in float64 on the CPU.

    The log odds of the most probable class; the largest cosine to a mean vector of a class, on a scale where 0 is how
    alike these vectors are to one another and 1 is their own (the mean over views, as in Podolskiy et al. 2021,
    arXiv:2101.03778, distances in the space of embeddings see more than probabilities); and, so that one threshold can
    serve all tasks, the logarithms of ways and shots, and a constant.

    Args:
        log_probabilities: of the classes, ``(n, n_way)``.
        features: embeddings of the texts in all views, ``(n, n_views * dim)``.
        prototypes: mean embeddings of the classes, ``(n_way, n_views * dim)``.
        n_views: how many views the embeddings have side by side.
        n_shot: support texts of a class, on average.
    """
    odds = _odds(log_probabilities)
    near = likeness(features, prototypes, n_views=n_views).cpu().double()
    n_way = torch.full_like(odds, log_probabilities.size(1)).log()
    shots = torch.full_like(odds, n_shot).log()
    return torch.stack([odds, near, n_way, shots, torch.ones_like(odds)], dim=1)


def scope_scores(clues: Tensor, weights: "Sequence[float]") -> Tensor:
    """How probable it is that a text is out of scope where half of all texts are, ``(n,)``."""
    return torch.sigmoid(-(clues @ torch.tensor(weights, dtype=clues.dtype, device=clues.device)))


def near_clues(
    log_probabilities: Tensor,
    features: Tensor,
    prototypes: Tensor,
    talk: Tensor,
    *,
    usual: float,
    n_views: int,
    n_shot: float,
) -> Tensor:
    """The clues where some class has two examples or more, so that it is known how near to a class its own texts are.

    The log odds of the most probable class; the likeness to a class, less the likeness that the examples themselves
    have to the other examples (as in Breunig et al. 2000, LOF: a distance counts in the measure of the distances around
    it); the cosine to small talk; the logarithm of the shots; and a constant. Shape ``(n, N_CLUES)``.

    Args:
        log_probabilities: of the classes, ``(n, n_way)``.
        features: embeddings of the texts in all views, ``(n, n_views * dim)``.
        prototypes: mean embeddings of the classes, ``(n_way, n_views * dim)``.
        talk: of each text, the cosine to the nearest sentence of small talk, ``(n,)``.
        usual: the median likeness of the examples.
        n_views: how many views the embeddings have side by side.
        n_shot: support texts of a class, on average.
    """
    odds, near = _odds(log_probabilities), likeness(features, prototypes, n_views=n_views).cpu().double()
    shots = torch.full_like(odds, n_shot).log()
    return torch.stack([odds, near - usual, talk.cpu().double(), shots, torch.ones_like(odds)], dim=1)


@lru_cache(maxsize=1)
def near_weights() -> dict[str, tuple[float, ...]]:
    """The weights of ``near_clues`` for ``two_views`` and for ``one_view``.

    Raises:
        ModelFolderError: if the file is damaged.
    """
    try:
        facts = json.loads(read_text(WEIGHTS_FILE))
        return {name: tuple(map(float, facts[name])) for name in ("two_views", "one_view")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFolderError(f"{WEIGHTS_FILE} is damaged ({error}). Install nlpmeta again.") from error


def _odds(log_probabilities: Tensor) -> Tensor:
    """The log odds of the most probable class, ``(n,)``."""
    best = log_probabilities.max(1).values.cpu().double().clamp(max=-1e-6)
    return best - torch.log1p(-best.exp())


_SMALL_TALK = Path(__file__).parent / "small_talk.txt"
_known: "WeakKeyDictionary[TextEncoder, dict[tuple[float, ...], Tensor]]" = WeakKeyDictionary()
_guard = Guard()


@lru_cache(maxsize=1)
def small_talk() -> tuple[str, ...]:
    """Sentences of small talk in many languages, each once."""
    lines = read_text(_SMALL_TALK).splitlines()
    return tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


def small_talk_vectors(mixture: "Mixture") -> Tensor:
    """Embeddings of the small talk in the views that ``mixture`` reads, ``(n, n_views * dim)``; computed once."""
    with _guard:
        known, scales = _known.setdefault(mixture.learner.encoder, {}), mixture.scales
        if scales not in known:
            with torch.no_grad():
                known[scales] = mixture.read(mixture.queries(small_talk()))
        return known[scales]


def small_talk_likeness(features: Tensor, talk: Tensor, *, n_views: int) -> Tensor:
    """The largest cosine of each text to a sentence of small talk, the mean over views; ``(n,)``.

    Args:
        features: of the texts, ``(n, n_views * dim)``.
        talk: of the sentences, ``(n_sentences, n_views * dim)``.
        n_views: how many views stand side by side.
    """
    parts = zip(features.chunk(n_views, 1), talk.to(features).chunk(n_views, 1), strict=True)
    found = [(F.normalize(one, dim=1) @ F.normalize(other, dim=1).T).max(1).values for one, other in parts]
    return torch.stack(found).mean(0)
