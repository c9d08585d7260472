"""Episodes from many data sets: of one set and language, or learned in one and scored in another of the same kind."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.episodes import Integers, Range, Shape, generator, sentences_of
from nlpmeta.episodes.index import Index, TwoSided
from nlpmeta.episodes.wrappers import XLM_R_TEMPERATURE, temperature_weights
from nlpmeta.errors import NLPMetaError

_LONGEST = 500
"""Characters of a text that count: about what 128 tokens hold."""
_OVERHEAD = 20  # characters that prefix and special tokens of a text are worth


@dataclass(frozen=True)
class SetPart:
    """The texts of one data set in one language; ``kind`` is what sort of question its labels answer."""

    kind: str
    name: str
    lang: str
    pool: LabeledTexts


@dataclass(frozen=True)
class ManySetsShape:
    """The sizes of episodes whose data sets have 2 classes or 100, texts of a word or of a page.

    ``n_query`` is the range of query texts a class: as many as ``most_chars``, the characters of an episode, leave room
    for. The same bound lowers the ways of episodes with many shots, and the shots of episodes with long texts.

    Raises:
        NLPMetaError: if an episode could have a single class.
    """

    n_way: Range = Range(2, 60)
    n_shot: Range = Range(1, 8)
    n_query: Range = Range(1, 6)
    most_chars: int = 6000

    def __post_init__(self) -> None:
        if self.n_way.low < 2 or self.most_chars < 1:
            raise NLPMetaError(f"An episode needs two classes and room for texts; got {self.n_way.low} as the fewest.")


class ManySetsSampler:
    """Draws a kind, a set of it and a language of that, each by a temperature; then shots, classes and texts.

    A share of the episodes have their query from another part of the same kind that has classes of the same names: the
    same set in another language, or another set. Labels are matched by their names as published. Translations (rows of
    one set with the same id) never stand on both sides.

    Args:
        parts: the data; those in which no episode can be filled are left out (``self.parts`` are the others).
        shape: the sizes.
        cross_share: share of the episodes with support and query from different parts, where there is such a pair.
        kind_temperature: 1 draws kinds by their number of texts, more makes them more equal.
        set_temperature: the same for the sets of a kind.
        language_temperature: the same for the languages of a set.
        seed: decides the draws.

    Raises:
        NLPMetaError: if the share is not in 0..1, or no part can fill an episode.
    """

    def __init__(
        self,
        parts: Sequence[SetPart],
        *,
        shape: ManySetsShape,
        cross_share: float,
        seed: int,
        kind_temperature: float = XLM_R_TEMPERATURE,
        set_temperature: float = XLM_R_TEMPERATURE,
        language_temperature: float = XLM_R_TEMPERATURE,
    ) -> None:
        if not 0 <= cross_share <= 1:
            raise NLPMetaError(f"The share of episodes across sets must lie in 0..1; got {cross_share}.")
        self.shape, self.cross_share, self.seed = shape, cross_share, seed
        by_kind: dict[str, list[SetPart]] = {}
        for part in parts:
            by_kind.setdefault(part.kind, []).append(part)
        usable = {kind: _Kind(found, shape) for kind, found in by_kind.items()}
        self._kinds = {kind: each for kind, each in usable.items() if each.parts}
        if not self._kinds:
            raise NLPMetaError(
                f"None of {len(parts)} sets and languages has {shape.n_way.low} classes with "
                f"{shape.n_shot.low + shape.n_query.low} distinct texts. Lower n_way, n_shot or n_query."
            )
        self.parts = tuple(part for each in self._kinds.values() for part in each.parts)
        self._names = tuple(self._kinds)
        sizes = [sum(len(part.pool) for part in self._kinds[kind].parts) for kind in self._names]
        self._weights = temperature_weights(sizes, temperature=kind_temperature)
        for each in self._kinds.values():
            each.weigh(set_temperature, language_temperature)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of all classes of all parts."""
        return tuple(sorted({name for part in self.parts for name in part.pool.label_names}))

    def episode(self, index: int) -> Episode:
        """Episode ``index``; support and query texts are grouped by class."""
        rng = generator(self.seed, index)
        kind = self._kinds[self._names[int(rng.choice(len(self._names), p=self._weights))]]
        support = int(rng.choice(len(kind.parts), p=kind.weights))
        wants_other = rng.random() < self.cross_share
        query = kind.partner(support, rng) if wants_other else support
        return kind.episode(support, query, rng)


class _Kind:
    """The parts of one kind over one pool, so that classes of the same name are one class."""

    def __init__(self, parts: Sequence[SetPart], shape: ManySetsShape) -> None:
        self._shape = shape
        pool = LabeledTexts.concatenate([_with_ids(part) for part in parts])
        sentences = sentences_of(pool)
        ends = np.cumsum([len(part.pool) for part in parts])
        indexes = [
            Index(pool, sentences=sentences, rows=np.arange(end - len(part.pool), end))
            for part, end in zip(parts, ends, strict=True)
        ]
        counts = np.asarray([[len(found) for found in index.by_class] for index in indexes])
        rich = (counts >= shape.n_shot.low + shape.n_query.low).sum(1) >= shape.n_way.low
        kept: list[int] = np.flatnonzero(rich).tolist()
        self.parts = [parts[i] for i in kept]
        self._indexes = [indexes[i] for i in kept]
        self._counts = counts[kept]
        self._chars = [_mean_chars(part.pool) for part in self.parts]
        self.weights: tuple[float, ...] = ()

    def weigh(self, set_temperature: float, language_temperature: float) -> None:
        """Set the probability of each part: that of its set times that of its language within the set."""
        of_set: dict[str, list[int]] = {}
        for i, part in enumerate(self.parts):
            of_set.setdefault(part.name, []).append(i)
        sizes = [sum(len(self.parts[i].pool) for i in rows) for rows in of_set.values()]
        weights = np.zeros(len(self.parts))
        for share, rows in zip(temperature_weights(sizes, temperature=set_temperature), of_set.values(), strict=True):
            within = [len(self.parts[i].pool) for i in rows]
            weights[rows] = share * np.asarray(temperature_weights(within, temperature=language_temperature))
        self.weights = tuple((weights / weights.sum()).tolist())

    def partner(self, support: int, rng: np.random.Generator) -> int:
        """Another part that can be the query to ``support``: a set first, then a language; itself if there is none."""
        found = [i for i in range(len(self.parts)) if i != support and self._fits(support, i)]
        if not found:
            return support
        names = sorted({self.parts[i].name for i in found})
        name = names[int(rng.integers(len(names)))]
        of_set = [i for i in found if self.parts[i].name == name]
        return of_set[int(rng.integers(len(of_set)))]

    def _fits(self, support: int, query: int) -> bool:
        return len(self._labels(support, query, self._shape.n_shot.low)) >= self._shape.n_way.low

    def _labels(self, support: int, query: int, n_shot: int) -> Integers:
        """The classes with enough sentences on both sides, even if every support sentence is one of the query's."""
        have, want = self._counts[support], self._counts[query]
        found: Integers = np.flatnonzero((have >= n_shot) & (want >= n_shot + self._shape.n_query.low))
        return found

    def episode(self, support: int, query: int, rng: np.random.Generator) -> Episode:
        """One episode with its support from one part and its query from another, or from the same."""
        shape = self._shape
        room = shape.most_chars / max(self._chars[support], self._chars[query])  # texts
        n_shot = shape.n_shot.draw(rng)
        n_shot = max(shape.n_shot.low, min(n_shot, int(room / shape.n_way.low) - shape.n_query.low))
        while len(labels := self._labels(support, query, n_shot)) < shape.n_way.low:
            n_shot -= 1
        most = max(shape.n_way.low, int(room / (n_shot + shape.n_query.low)))
        n_way = shape.n_way.draw(rng, most=min(len(labels), most))
        chosen = rng.choice(labels, size=n_way, replace=False)
        spare = min(int(room / n_way), int(self._counts[query][chosen].min())) - n_shot
        n_query = max(shape.n_query.low, min(shape.n_query.high, spare))
        if support == query:
            return self._indexes[support].episode(rng, chosen, n_shot, n_query)
        sides = TwoSided(self._indexes[support], self._indexes[query], Shape.of(n_way, n_shot, n_query))
        return sides.episode(rng, chosen, n_shot, n_query)


def _with_ids(part: SetPart) -> LabeledTexts:
    """The texts with ids that mean nothing outside their set; texts without an id get one of their own."""
    pool = part.pool
    sound = pool.ids if pool.ids is not None and max(Counter(pool.ids).values()) == 1 else None
    own = [f"{part.name}/{part.lang}/row {row}" for row in range(len(pool))]
    ids = own if sound is None else [f"{part.name}/{id_}" for id_ in sound]
    return LabeledTexts(pool.texts, pool.labels, pool.label_names, langs=(part.lang,) * len(pool), ids=tuple(ids))


def _mean_chars(pool: LabeledTexts) -> float:
    return float(np.mean([min(len(text), _LONGEST) for text in pool.texts])) + _OVERHEAD
