"""What tasks say of their classes: nothing (clusters of an encoder's own embeddings), examples, names, or both."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.episodes import Integers, Range, Sampler, Shape, generator, next_stream
from nlpmeta.episodes.index import Index
from nlpmeta.episodes.raw_texts import TellingWords
from nlpmeta.errors import NLPMetaError

Vectors: TypeAlias = NDArray[np.float32]
EmbedTexts: TypeAlias = Callable[[Sequence[str]], Vectors]
"""From n texts to unit vectors ``(n, dim)``."""

_LETTERS, _DIMENSIONS = 4096, 32  # columns that groups of letters are hashed into, and those that are left of them
_PASSES = 20  # over the texts, in batches
_SPARE = 1.5  # times as many clusters as ways are drawn where they are named, as some have no telling word
_STRETCH, _STATE = 5, 6  # streams of random numbers of their own


class ClusterSampler:
    """A class is a cluster of the texts' embeddings; ``renew`` must be called first, and again as the encoder learns.

    Several partitions are made, each but the first with every dimension stretched at random; an episode is of one.

    Texts of several languages fall into clusters of one language each where the encoder tells languages apart. With
    ``letter_groups`` above 1 the texts are first grouped by their letters, roughly by language, and the mean embedding
    of its group is taken off each, so that clusters go across languages.

    Source: CACTUs, Hsu, Levine and Finn, ICLR 2019 (arXiv:1810.02334), algorithm 1; clustering anew in training is that
    of DeepCluster (Caron et al., ECCV 2018, arXiv:1807.05520). Where we differ: the letter groups.

    Args:
        texts: the only thing that is read.
        n_way: clusters of an episode.
        n_shot: support texts of each cluster.
        n_query: query texts of each cluster.
        seed: decides the partitions and the draws.
        n_clusters: of a partition.
        n_partitions: how many are made.
        letter_groups: groups by letters whose means are taken off; 1 takes off the mean of all.
        telling_names: name clusters by words of texts outside the episode; numbered where too few have such words.

    Raises:
        NLPMetaError: if there are not at least twice as many texts as clusters, or fewer clusters than ways.
    """

    def __init__(
        self,
        texts: Sequence[str],
        *,
        n_way: int | Range,
        n_shot: int | Range,
        n_query: int,
        seed: int,
        n_clusters: int,
        n_partitions: int = 4,
        letter_groups: int = 1,
        telling_names: bool = False,
    ) -> None:
        self.shape = Shape.of(n_way, n_shot, n_query)
        if n_clusters < self.shape.n_way.low or min(n_partitions, letter_groups) < 1:
            raise NLPMetaError(
                f"Need as many clusters as ways ({self.shape.n_way.low}) and 1 or more partitions and letter groups; "
                f"got {n_clusters}, {n_partitions} and {letter_groups}."
            )
        if len(texts) < 2 * n_clusters:
            raise NLPMetaError(
                f"{n_clusters} clusters need {2 * n_clusters} distinct texts; there are {len(texts)}. "
                "Add texts, or lower n_clusters."
            )
        self.texts, self.seed = tuple(texts), seed
        self.n_clusters, self.n_partitions, self.letter_groups = n_clusters, n_partitions, letter_groups
        self._telling_names, self._row = telling_names, {text: row for row, text in enumerate(self.texts)}
        self._words: TellingWords | None = None
        self._parts: list[tuple[Index, Integers]] = []

    def renew(self, embed: EmbedTexts) -> Integers:
        """Make the partitions anew from what ``embed`` makes of the texts; they are returned, ``(n_partitions, n)``."""
        each = {"n_clusters": self.n_clusters, "n_partitions": self.n_partitions, "seed": self.seed}
        found = partitions(embed(self.texts), self._groups, **each)
        self.put(found)
        return found

    def put(self, found: Integers) -> None:
        """Use these partitions, ``(n_partitions, n_texts)``, the cluster of each text.

        Raises:
            NLPMetaError: if they are not of these texts, or no partition has enough clusters that fill an episode.
        """
        if found.ndim != 2 or found.shape[1] != len(self.texts):
            raise NLPMetaError(f"Partitions of shape {found.shape} are not of {len(self.texts)} texts.")
        if self._telling_names and self._words is None:
            self._words = TellingWords(self.texts, self._groups, self.n_clusters)
        names = tuple(map(str, range(self.n_clusters)))
        indices = (Index(LabeledTexts(self.texts, tuple(labels.tolist()), names)) for labels in found)
        parts = [(index, index.rich(self.shape.need)) for index in indices]
        self._parts = [(index, rich) for index, rich in parts if len(rich) >= self.shape.n_way.low]
        if not self._parts:
            raise NLPMetaError(
                f"No partition has {self.shape.n_way.low} clusters of {self.shape.need} distinct texts; the richest "
                f"has {max(len(rich) for _, rich in parts)}. Use fewer clusters, ways or shots, or more texts."
            )

    def episode(self, index: int) -> Episode:
        """Episode ``index``; support and query texts are grouped by cluster.

        Raises:
            NLPMetaError: if there are no partitions yet.
        """
        if not self._parts:
            raise NLPMetaError("There are no clusters yet: call renew(embed) before drawing episodes.")
        rng = generator(self.seed, index)
        part, rich = self._parts[int(rng.integers(len(self._parts)))]
        n_way, n_shot = self.shape.n_way.draw(rng, most=len(rich)), self.shape.n_shot.draw(rng)
        if self._words is not None:
            return self._told(self._words, part, rich, n_way, n_shot, rng)
        return part.episode(rng, rng.choice(rich, size=n_way, replace=False), n_shot, self.shape.n_query)

    def _told(
        self, words: TellingWords, part: Index, rich: Integers, n_way: int, n_shot: int, rng: np.random.Generator
    ) -> Episode:
        """An episode of those clusters that have telling words."""
        drawn = rng.choice(rich, size=min(len(rich), round(_SPARE * n_way)), replace=False)
        episode = part.episode(rng, drawn, n_shot, self.shape.n_query)
        sentences, of_row = part.sentences.of_row, np.asarray(part.pool.labels)
        free = ~np.isin(sentences, sentences[[self._row[text] for text in episode.texts()]])
        names = words.names([np.flatnonzero(free & (of_row == label)) for label in drawn], rng)
        told = [label for label, name in enumerate(names) if name][:n_way]
        if len(told) < self.shape.n_way.low:
            told, names = list(range(n_way)), episode.support.label_names
        kept = [episode.support.label_names[label] for label in told]
        few = Episode(episode.support.with_classes(kept), episode.query.with_classes(kept))
        return _named(few, tuple(names[label] for label in told))

    @cached_property
    def _groups(self) -> Integers:
        return groups_by_letters(self.texts, self.letter_groups, seed=self.seed)


def cluster_samplers(sampler: Sampler) -> Iterator[ClusterSampler]:
    """Those inside a sampler, however it is wrapped, in a fixed order."""
    if isinstance(sampler, ClusterSampler):
        yield sampler
    inner = getattr(sampler, "sampler", None)
    for each in (*getattr(sampler, "samplers", ()), *((inner,) if inner is not None else ())):
        yield from cluster_samplers(each)


def groups_by_letters(texts: Sequence[str], n_groups: int, *, seed: int) -> Integers:
    """A group for each text by the groups of one to three letters that it has: roughly its language, ``(n,)``."""
    if n_groups == 1:
        return np.zeros(len(texts), dtype=np.int64)
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer

    letters = HashingVectorizer(analyzer="char_wb", ngram_range=(1, 3), n_features=_LETTERS, alternate_sign=False)
    small = TruncatedSVD(_DIMENSIONS, random_state=_random_state(seed, 0)).fit_transform(letters.transform(texts))
    return _k_means(small.astype(np.float32), n_groups, seed=_random_state(seed, 1))


def partitions(vectors: Vectors, groups: Integers, *, n_clusters: int, n_partitions: int, seed: int) -> Integers:
    """The cluster of each text in each partition, ``(n_partitions, n)``.

    Args:
        vectors: ``(n, dim)``.
        groups: a number for each text; the mean of its group is taken off each vector.
        n_clusters: of each partition.
        n_partitions: the first is of the vectors as they are, the others of randomly stretched ones.
        seed: decides them.
    """
    centred = np.array(vectors, dtype=np.float32)
    for group in np.unique(groups):
        centred[groups == group] -= centred[groups == group].mean(0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    found = []
    for number in range(n_partitions):
        rng = generator(seed, number, stream=_STRETCH)
        stretch = np.ones(centred.shape[1]) if number == 0 else np.asarray(rng.uniform(0.5, 1.5, centred.shape[1]))
        found.append(_k_means(centred * stretch.astype(np.float32), n_clusters, seed=_random_state(seed, number + 2)))
    return np.stack(found)


def _k_means(vectors: Vectors, n_clusters: int, *, seed: int) -> Integers:
    """A fixed number of passes, so that rounding cannot decide when to stop."""
    from sklearn.cluster import MiniBatchKMeans

    model = MiniBatchKMeans(
        n_clusters, random_state=seed, n_init=1, max_iter=_PASSES, max_no_improvement=None, batch_size=1024
    )
    return np.asarray(model.fit_predict(vectors), dtype=np.int64)


def _random_state(seed: int, number: int) -> int:
    return int(generator(seed, number, stream=_STATE).integers(2**31))


PlainNames = Callable[[Sequence[str]], tuple[str, ...] | None]
"""The names of classes in plain words, or ``None`` where they say nothing."""


@dataclass(frozen=True)
class ClueShares:
    """Shares of the episodes in which one of the clues is taken away; in the others both are there.

    Raises:
        NLPMetaError: if a share is negative or they sum to more than 1.
    """

    names_only: float = 0.0
    """No example of any class: its name in plain words stands in the place of its support texts."""
    missing: float = 0.0
    """The same for some classes, at least one and not all."""
    withheld: float = 0.0
    """Classes are numbered, so a learner that reads names has none to read."""
    replaced: float = 0.0
    """Classes carry names of other classes, which say nothing about them."""

    def __post_init__(self) -> None:
        each = [float(getattr(self, field.name)) for field in fields(self)]
        if min(each) < 0 or sum(each) > 1 + 1e-9:
            raise NLPMetaError(f"Shares of names and examples must not be negative nor sum to more than 1; got {each}.")

    def draw(self, number: float) -> str | None:
        """Which clue is taken away, for a uniform random number in 0..1."""
        for field in fields(self):
            number -= float(getattr(self, field.name))
            if number < 0:
                return field.name
        return None


class ClueSampler:
    """The episodes of a sampler, of which some have no names that say anything, and some no examples.

    A name that stands for examples is a support text like any other, so every learner can take such an episode. Where
    names say nothing (numbers, letters), no example is taken away.

    Args:
        sampler: where episodes come from.
        shares: how often which clue is taken away.
        plain_names: names as a learner reads them.
        vocabulary: names to replace others by; without enough of them an episode's own names are dealt out anew.
        seed: decides what becomes of which episode.
    """

    def __init__(
        self,
        sampler: Sampler,
        *,
        shares: ClueShares,
        plain_names: PlainNames,
        vocabulary: Sequence[str] = (),
        seed: int,
    ) -> None:
        self.sampler, self.shares, self.seed, self.stream = sampler, shares, seed, next_stream(sampler)
        self._plain_names, self._vocabulary = plain_names, tuple(dict.fromkeys(vocabulary))

    def episode(self, index: int) -> Episode:
        """Episode ``index`` of the sampler, with all its clues or without some."""
        whole, rng = self.sampler.episode(index), generator(self.seed, index, stream=self.stream)
        taken = self.shares.draw(rng.random())
        if taken == "withheld":
            return _named(whole, tuple(map(str, range(whole.n_way))))
        if taken == "replaced":
            return _named(whole, self._other_names(whole.support.label_names, rng))
        words = self._plain_names(whole.support.label_names) if taken is not None else None
        if words is None:
            return whole
        n_without = whole.n_way if taken == "names_only" else int(rng.integers(1, whole.n_way))
        without = rng.permutation(whole.n_way)[:n_without]
        return replace(whole, support=_with_names_for(whole.support, set(without.tolist()), words))

    def _other_names(self, names: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
        others = [name for name in self._vocabulary if name not in names]
        if len(others) >= len(names):
            return tuple(others[i] for i in rng.choice(len(others), size=len(names), replace=False))
        return tuple(names[i] for i in rng.permutation(len(names)))


def _named(episode: Episode, names: tuple[str, ...]) -> Episode:
    support, query = (replace(side, label_names=names, descriptions=None) for side in (episode.support, episode.query))
    return replace(episode, support=support, query=query)


def _with_names_for(support: LabeledTexts, classes: set[int], words: Sequence[str]) -> LabeledTexts:
    """The support in which the texts of some classes gave way to one text, the name of the class."""
    rows = [row for row, label in enumerate(support.labels) if label not in classes]
    first = [support.labels.index(label) for label in range(support.n_way) if label in classes]
    kept = support.select(sorted([*rows, *first]))
    texts = tuple(
        words[label] if label in classes else text for text, label in zip(kept.texts, kept.labels, strict=True)
    )
    return replace(kept, texts=texts, ids=None)
