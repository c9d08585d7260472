"""Samplers around samplers: mixtures, harder tasks, classes put together, fewer examples of some classes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.episodes import Integers, Range, Sampler, generator, next_stream
from nlpmeta.episodes.index import draw
from nlpmeta.errors import NLPMetaError

XLM_R_TEMPERATURE = 1 / 0.3


class MixtureSampler:
    """Episode ``i`` is episode ``i`` of one of the samplers, drawn with the given weights (equal by default).

    Raises:
        NLPMetaError: if there is no sampler, or the weights are not one each, finite, not negative, some positive.
    """

    def __init__(self, samplers: Sequence[Sampler], *, weights: Sequence[float] | None = None, seed: int) -> None:
        if not samplers:
            raise NLPMetaError("A mixture needs at least one sampler.")
        given = np.ones(len(samplers)) if weights is None else np.asarray(weights, dtype=np.float64)
        if given.shape != (len(samplers),) or not np.isfinite(given).all() or (given < 0).any() or not given.any():
            raise NLPMetaError(
                f"A mixture of {len(samplers)} samplers needs as many weights, finite, none negative and not all zero; "
                f"got {None if weights is None else list(weights)}."
            )
        self.samplers, self.seed, self.stream = tuple(samplers), seed, next_stream(*samplers)
        self.weights = tuple(float(weight) for weight in given / given.sum())
        self._positive = np.flatnonzero(given)
        self._edges = np.cumsum(given[self._positive] / given.sum())[:-1]

    def episode(self, index: int) -> Episode:
        """Episode ``index`` of the sampler that is drawn for it."""
        return self.samplers[self.choice(index)].episode(index)

    def choice(self, index: int) -> int:
        """Which sampler episode ``index`` comes from."""
        drawn = generator(self.seed, index, stream=self.stream).random()
        return int(self._positive[np.searchsorted(self._edges, drawn, side="right")])


def temperature_weights(sizes: Sequence[int], *, temperature: float) -> tuple[float, ...]:
    """Probabilities in proportion to ``size ** (1 / temperature)``: 1 keeps the sizes, infinity makes all equal.

    Source: multilingual BERT and XLM (Conneau and Lample, NeurIPS 2019, arXiv:1901.07291, section 3.1), there as an
    exponent ``alpha = 1 / temperature``; XLM-R (Conneau et al., ACL 2020, arXiv:1911.02116, section 3.1) takes 0.3.

    Raises:
        NLPMetaError: if a size is not positive, there is none, or the temperature is not positive.
    """
    if not sizes or min(sizes) < 1 or not temperature > 0:
        raise NLPMetaError(
            f"Sizes and temperature must be positive; got sizes {list(sizes)}, temperature {temperature}."
        )
    logs = np.asarray([math.log(size) for size in sizes]) / temperature
    weights = np.exp(logs - logs.max())
    return tuple(float(weight) for weight in weights / weights.sum())


_FEWEST_CLASSES = 4  # classes that can be put together in pairs


class MergedClassesSampler:
    """A share of the episodes have their classes put together two by two, so that a class is one thing or another.

    Source: the idea of making further tasks from the labels that there are is that of Yao, Zhang and Finn,
    Meta-Learning with Fewer Tasks through Task Interpolation, ICLR 2022 (arXiv:2106.02695). Where we differ: labels are
    put together, texts are not mixed. Episodes of fewer than four classes stay as they are; an odd class stays alone.

    Args:
        sampler: where tasks come from.
        share: of the episodes, 0 to 1.
        seed: decides which, and which classes go together.

    Raises:
        NLPMetaError: if the share is not in 0..1.
    """

    def __init__(self, sampler: Sampler, *, share: float, seed: int) -> None:
        if not 0 <= share <= 1:
            raise NLPMetaError(f"The share of episodes with merged classes must lie in 0..1; got {share}.")
        self.sampler, self.share, self.seed, self.stream = sampler, share, seed, next_stream(sampler)

    def episode(self, index: int) -> Episode:
        """Episode ``index`` of the sampler, with its classes or with pairs of them."""
        episode, rng = self.sampler.episode(index), generator(self.seed, index, stream=self.stream)
        if rng.random() >= self.share or episode.n_way < _FEWEST_CLASSES:
            return episode
        pair_of = np.empty(episode.n_way, dtype=np.int64)
        pair_of[rng.permutation(episode.n_way)] = np.arange(episode.n_way) // 2
        names: list[list[str]] = [[] for _ in range(int(pair_of.max()) + 1)]
        for label, pair in enumerate(pair_of):
            names[pair].append(episode.support.label_names[label])
        merged = tuple(" or ".join(each) for each in names)
        support, query = (_relabelled(side, pair_of, merged) for side in (episode.support, episode.query))
        return Episode(support, query, episode.out_of_scope)


def _relabelled(side: LabeledTexts, pair_of: np.ndarray, names: tuple[str, ...]) -> LabeledTexts:
    return replace(side, labels=tuple(int(pair_of[label]) for label in side.labels), label_names=names)


_HASHES = 1 << 14  # columns that letter groups are hashed into


class DifficultySampler:
    """A share of the episodes are the hardest of several that are drawn; the others are drawn as usual.

    How hard a task is, is said by a classifier that knows only letters (``surface_error``), so an episode stays a
    function of its index alone, whatever is being trained.

    Source: the idea of preferring confusable classes is that of Liu et al., Adaptive Task Sampling for Meta-Learning,
    ECCV 2020 (arXiv:2007.08735). Where we differ: whole tasks are compared, and not by the learner in training.

    Args:
        sampler: where tasks come from; best of one data set, or the hardest data set crowds out the others.
        share: of the episodes that are chosen so, 0 to 1.
        candidates: how many are drawn for each of these.
        seed: decides which episodes are chosen so.

    Raises:
        NLPMetaError: if the share is not in 0..1 or there are fewer than 2 candidates.
    """

    def __init__(self, sampler: Sampler, *, share: float, candidates: int = 4, seed: int) -> None:
        if not 0 <= share <= 1 or candidates < 2:
            raise NLPMetaError(f"Need a share in 0..1 and 2 or more candidates; got {share} and {candidates}.")
        self.sampler, self.share, self.candidates, self.seed = sampler, share, candidates, seed
        self.stream = next_stream(sampler)

    def episode(self, index: int) -> Episode:
        """Episode ``index``: one of the numbers ``index * candidates`` and following of the sampler."""
        first = index * self.candidates
        if generator(self.seed, index, stream=self.stream).random() >= self.share:
            return self.sampler.episode(first)
        return max((self.sampler.episode(first + i) for i in range(self.candidates)), key=surface_error)


def surface_error(episode: Episode) -> float:
    """The share of query texts that are not nearest to their own class by groups of three letters."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 3), n_features=_HASHES, alternate_sign=False)
    support, query = (vectorizer.transform(part.texts) for part in (episode.support, episode.query))
    means = _class_rows(episode.support).T @ support.toarray()
    means /= np.linalg.norm(means, axis=1, keepdims=True).clip(min=1e-9)
    nearest = (query @ means.T).argmax(1)
    return float((nearest != np.asarray(episode.query.labels)).mean())


def _class_rows(data: LabeledTexts) -> np.ndarray:
    """One column a class, ``(n_texts, n_way)``, 1 where a text is of the class."""
    return np.eye(data.n_way)[list(data.labels)]


@dataclass(frozen=True)
class LongTail:
    """Zipf's law: the class of rank ``r`` keeps ``r ** -exponent`` times as many texts as the first, and at least one.

    The ranks are drawn anew for each episode; no class keeps more than it has.
    """

    exponent: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.exponent) and self.exponent > 0):
            raise NLPMetaError(f"The exponent of a long tail must be positive and finite; got {self.exponent}.")

    def draw(self, rng: np.random.Generator, counts: Integers) -> Integers:
        """The texts to keep of each class, ``(n_way,)``, of the ``counts`` that there are."""
        ranks = rng.permutation(len(counts)) + 1
        wanted = np.rint(counts.max() * ranks ** -float(self.exponent)).astype(np.int64)
        shots: Integers = np.minimum(np.maximum(wanted, 1), counts)
        return shots


@dataclass(frozen=True)
class MetaDatasetShots:
    """Shares of a limited support set, in proportion to the texts of each class times a random factor in [1/2, 2].

    With ``beta`` uniform in (0, 1] and ``a`` uniform in [log 1/2, log 2] for each class, the support has
    ``|S| = min(most, sum of ceil(beta * min(100, n)))`` texts, of which a class gets
    ``min(floor(share * (|S| - n_way)) + 1, n)``, where ``share`` is ``exp(a) * n``, normalised.

    Source: Triantafillou et al., ICLR 2020 (arXiv:1903.03096), section 3 (the support size and shots of an episode).
    We differ in that ``n`` is what the wrapped sampler gives as support, so that it is natural only if that is.
    """

    most: int = 500

    def __post_init__(self) -> None:
        if self.most < 1:
            raise NLPMetaError(f"A support set must have room for at least 1 text; got {self.most}.")

    def draw(self, rng: np.random.Generator, counts: Integers) -> Integers:
        """The texts to keep of each class, ``(n_way,)``, of the ``counts`` that there are."""
        beta = 1 - rng.random()
        total = min(self.most, int(np.ceil(beta * np.minimum(100, counts)).sum()))
        factors = np.exp(rng.uniform(math.log(0.5), math.log(2), len(counts))) * counts
        spare = np.floor(factors / factors.sum() * max(total - len(counts), 0)).astype(np.int64)
        shots: Integers = np.minimum(spare + 1, counts)
        return shots


Shots: TypeAlias = Range | LongTail | MetaDatasetShots


class ImbalancedSampler:
    """Keeps, of each class of an episode's support, as many texts as ``shots`` says; the query stays as it is.

    Wraps any sampler, whose shots are then the most that a class can have.

    Args:
        sampler: gives the episodes.
        shots: a range, of which each class draws its own number, or a law.
        seed: decides the draws.

    Raises:
        NLPMetaError: if a class of an episode has fewer support texts than the upper end of a range.
    """

    def __init__(self, sampler: Sampler, *, shots: Shots, seed: int) -> None:
        self.sampler, self.shots, self.seed, self.stream = sampler, shots, seed, next_stream(sampler)
        self.episode(0)

    def episode(self, index: int) -> Episode:
        """Episode ``index`` of the wrapped sampler, with a part of its support."""
        whole = self.sampler.episode(index)
        labels = np.asarray(whole.support.labels)
        counts = np.bincount(labels, minlength=whole.n_way)
        rng = generator(self.seed, index, stream=self.stream)
        keep = self._draw(rng, counts)
        rows = np.concatenate([draw(rng, np.flatnonzero(labels == label), size) for label, size in enumerate(keep)])
        return Episode(whole.support.select(np.sort(rows).tolist()), whole.query, whole.out_of_scope)

    def _draw(self, rng: np.random.Generator, counts: Integers) -> Integers:
        if not isinstance(self.shots, Range):
            return self.shots.draw(rng, counts)
        if counts.min() < self.shots.high:
            raise NLPMetaError(
                f"Up to {self.shots.high} shots of each class were requested but the wrapped sampler gives "
                f"{counts.min()} of one; let it draw n_shot={self.shots.high}."
            )
        return rng.integers(self.shots.low, self.shots.high + 1, size=len(counts))
