"""What people say that belongs to no task: greetings, thanks, chatter; sentences of our own in many languages."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.encoder.guard import Guard
from nlpmeta.files import read_text

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder
    from nlpmeta.learners.mixture import Mixture

_FILE = Path(__file__).parent / "small_talk.txt"
_known: "WeakKeyDictionary[TextEncoder, dict[tuple[float, ...], Tensor]]" = WeakKeyDictionary()
_guard = Guard()


@lru_cache(maxsize=1)
def sentences() -> tuple[str, ...]:
    """The sentences, each once."""
    lines = read_text(_FILE).splitlines()
    return tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


def vectors(mixture: "Mixture") -> Tensor:
    """Embeddings of the sentences in the views that ``mixture`` reads, ``(n, n_views * dim)``; computed once."""
    with _guard:
        known, factors = _known.setdefault(mixture.learner.encoder, {}), mixture.factors
        if factors not in known:
            with torch.no_grad():
                known[factors] = mixture.read(mixture.queries(sentences()))
        return known[factors]


def nearest(features: Tensor, talk: Tensor, *, n_views: int) -> Tensor:
    """The largest cosine of each text to a sentence of small talk, the mean over views; ``(n,)``.

    Args:
        features: of the texts, ``(n, n_views * dim)``.
        talk: of the sentences, ``(n_sentences, n_views * dim)``.
        n_views: how many views stand side by side.
    """
    parts = zip(features.chunk(n_views, 1), talk.to(features).chunk(n_views, 1), strict=True)
    found = [(F.normalize(one, dim=1) @ F.normalize(other, dim=1).T).max(1).values for one, other in parts]
    return torch.stack(found).mean(0)
