"""Query texts that belong to none of the classes, from elsewhere or from classes that were held out."""

import numpy as np

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.sampling.base import Range, Sampler, generator, next_stream
from nlpmeta.sampling.leaks import Known, fingerprint, fingerprints


class OutOfScopeSampler:
    """Adds texts of a separate pool to the out-of-scope texts of each episode.

    A text is passed over if its label is a class of the episode, or if the episode has it already, as the same text or
    as a translation (the same id in another language).

    Args:
        sampler: gives the episodes.
        pool: where the out-of-scope texts come from.
        n_texts: how many to add to an episode.
        seed: decides the draws.

    Raises:
        DataError: if the pool has too few texts that are out of the scope of an episode.
    """

    def __init__(self, sampler: Sampler, *, pool: LabeledTexts, n_texts: int | Range, seed: int) -> None:
        self.sampler, self.n_texts, self.seed, self.stream = sampler, Range.of(n_texts), seed, next_stream(sampler)
        self._pool, self._marks, self._names = pool, fingerprints(pool.texts), pool.names()
        self._ids, self._langs = pool.ids or (None,) * len(pool), pool.langs or (None,) * len(pool)
        self.episode(0)

    def episode(self, index: int) -> Episode:
        """Episode ``index`` of the wrapped sampler, with out-of-scope texts."""
        inner = self.sampler.episode(index)
        rng = generator(self.seed, index, stream=self.stream)
        size = self.n_texts.draw(rng)
        return Episode(inner.support, inner.query, inner.out_of_scope + self._draw(inner, size, rng))

    def _draw(self, inner: Episode, size: int, rng: np.random.Generator) -> tuple[str, ...]:
        known, names = Known(inner.support, inner.query), set(inner.support.label_names)
        seen = set(fingerprints(inner.out_of_scope))
        drawn: list[str] = []
        for row in rng.permutation(len(self._pool)).tolist():
            if len(drawn) == size:
                return tuple(drawn)
            mark, id_, lang = self._marks[row], self._ids[row], self._langs[row]
            if self._names[row] not in names and mark not in seen and not known.has(mark, id_=id_, lang=lang):
                seen.add(mark)
                drawn.append(self._pool.texts[row])
        if len(drawn) < size:
            raise DataError(
                f"{size} out-of-scope texts were asked for but only {len(drawn)} of the {len(self._pool)} of the pool "
                f"are neither in the episode nor of its classes ({', '.join(sorted(names))}). Lower n_texts."
            )
        return tuple(drawn)


class HeldOutClassSampler:
    """Takes some classes out of each episode and makes their query texts its out-of-scope texts.

    Wrap a sampler that draws ``n_classes`` ways more than the episodes are to have.

    Args:
        sampler: gives the episodes.
        n_classes: how many classes to hold out.
        seed: decides which.

    Raises:
        NLPMetaError: if fewer than two classes would remain.
    """

    def __init__(self, sampler: Sampler, *, n_classes: int, seed: int) -> None:
        if n_classes < 1:
            raise NLPMetaError(f"At least one class must be held out; got {n_classes}.")
        self.sampler, self.n_classes, self.seed, self.stream = sampler, n_classes, seed, next_stream(sampler)
        self.episode(0)

    def episode(self, index: int) -> Episode:
        """Episode ``index`` of the wrapped sampler, without the classes that are held out."""
        whole = self.sampler.episode(index)
        names = whole.support.label_names
        if len(names) - self.n_classes < 2:
            raise NLPMetaError(
                f"Two classes must remain in scope, but {self.n_classes} of {len(names)} would be held out; "
                "let the wrapped sampler draw more ways."
            )
        order = generator(self.seed, index, stream=self.stream).permutation(len(names))
        kept = [names[label] for label in np.sort(order[self.n_classes :])]
        support, query = whole.support.with_classes(kept), whole.query.with_classes(kept)
        known = set(fingerprints(support.texts + query.texts))
        held_out = zip(whole.query.texts, whole.query.names(), strict=True)
        outside = tuple(text for text, name in held_out if name not in kept and fingerprint(text) not in known)
        return Episode(support, query, whole.out_of_scope + outside)
