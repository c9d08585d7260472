"""Prefer the harder of several tasks."""

import numpy as np

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.errors import NLPMetaError
from nlpmeta.sampling.base import Sampler, generator, next_stream

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
