"""Where the texts of one episode lie before and after meta-training, in two dimensions."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nlpmeta.data import Episode
from nlpmeta.encoder.lora import has_adapter
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.encoder.views import ADAPTED, FROZEN, Views

MOST_CLASSES, MOST_QUERIES = 8, 20
"""More classes than a reader can tell by colour, or more points of a class, hide the picture."""


@dataclass(frozen=True, kw_only=True)
class Map:
    """Points ``(x, y)`` of the texts of some classes, support first; ``explained`` is the share of their variance."""

    label_names: tuple[str, ...]
    labels: tuple[int, ...]
    n_support: int
    points: tuple[tuple[float, float], ...]
    explained: float


@dataclass(frozen=True, kw_only=True)
class Maps:
    """The same texts as the frozen and as the meta-trained encoder sees them."""

    frozen: Map
    adapted: Map

    @classmethod
    def of(cls, encoder: TextEncoder, episode: Episode) -> "Maps | None":
        """Principal components of the embeddings, for each of the two by itself; ``None`` without adapters."""
        if not has_adapter(encoder):
            return None
        counts = episode.query.counts()
        names = sorted(sorted(counts), key=lambda name: -counts[name])[:MOST_CLASSES]
        support, query = episode.support.with_classes(names), episode.query.with_classes(names)
        rows = [i for label in range(len(names)) for i in _first(query.labels, label)]
        query = query.select(rows)
        labels = support.labels + query.labels
        views = Views(encoder)
        vectors = views.encode(support.texts + query.texts).cpu().numpy()
        both = [
            _map(vectors[:, views.columns(factor)], labels, names=tuple(names), n_support=len(support))
            for factor in (FROZEN, ADAPTED)
        ]
        return cls(frozen=both[0], adapted=both[1])

    def json(self) -> dict[str, object]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "Maps":
        """What ``json`` gave."""
        return cls(**{name: Map(**values[name]) for name in ("frozen", "adapted")})


def _map(vectors: np.ndarray, labels: tuple[int, ...], *, names: tuple[str, ...], n_support: int) -> Map:
    from sklearn.decomposition import PCA

    fitted = PCA(2, svd_solver="full").fit(vectors)
    points = tuple((round(float(x), 4), round(float(y), 4)) for x, y in fitted.transform(vectors))
    explained = float(fitted.explained_variance_ratio_.sum())
    return Map(label_names=names, labels=labels, n_support=n_support, points=points, explained=explained)


def _first(labels: tuple[int, ...], label: int) -> list[int]:
    return [i for i, each in enumerate(labels) if each == label][:MOST_QUERIES]
