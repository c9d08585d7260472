"""Learn in one language, be scored in another."""

from collections.abc import Sequence
from itertools import product

from nlpmeta import languages
from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.errors import NLPMetaError
from nlpmeta.sampling.base import Range, generator
from nlpmeta.sampling.index import Index, TwoSided
from nlpmeta.sampling.pools import rows_by
from nlpmeta.sampling.sentences import sentences_of
from nlpmeta.sampling.shape import Shape


class CrossLingualSampler:
    """Samples a pair of languages uniformly, then classes that both have, support in the first, query in the second.

    Classes are matched by label name. Rows with the same id are one sentence: its translation never stands on the
    other side. ``pairs`` are the pairs (support, query) that are drawn: those with at least ``n_way`` (its lower end,
    for a range) classes that can be filled whichever texts are drawn. A range of ways ends at what the pair has.

    Args:
        pool: texts of several languages, as from ``LabeledTexts.concatenate``.
        n_way: classes of an episode.
        n_shot: support texts of each class.
        n_query: query texts of each class.
        seed: decides the draws.
        support_langs: languages to learn in, in any spelling; all by default.
        query_langs: languages to be scored in, likewise.

    Raises:
        UnknownLanguageError: if the pool does not have a language.
        DataError: if the pool does not say its languages.
        NLPMetaError: if no pair has enough classes, or a language that was asked for is in no such pair.
    """

    def __init__(
        self,
        pool: LabeledTexts,
        *,
        n_way: int | Range,
        n_shot: int | Range,
        n_query: int,
        seed: int,
        support_langs: Sequence[str] | None = None,
        query_langs: Sequence[str] | None = None,
    ) -> None:
        self.seed, self.shape = seed, Shape.of(n_way, n_shot, n_query)
        rows, sentences = rows_by(pool, "langs"), sentences_of(pool)
        parts = {lang: Index(pool, sentences=sentences, rows=found) for lang, found in rows.items()}
        asked_support, asked_query = (_asked(asked, tuple(parts)) for asked in (support_langs, query_langs))
        self._sides: dict[tuple[str, str], TwoSided] = {}
        for pair in product(asked_support or parts, asked_query or parts):
            if pair[0] != pair[1]:
                sides = TwoSided(parts[pair[0]], parts[pair[1]], self.shape)
                if len(sides.labels) >= self.shape.n_way.low:
                    self._sides[pair] = sides
        self.pairs = tuple(self._sides)
        self._check(asked_support, asked_query, tuple(parts))

    def episode(self, index: int) -> Episode:
        """Episode ``index``; support and query texts are grouped by class."""
        rng = generator(self.seed, index)
        sides = self._sides[self.pairs[int(rng.integers(len(self.pairs)))]]
        n_way = self.shape.n_way.draw(rng, most=len(sides.labels))
        n_shot = self.shape.n_shot.draw(rng)
        labels = rng.choice(sides.labels, size=n_way, replace=False)
        return sides.episode(rng, labels, n_shot, self.shape.n_query)

    def _check(self, support: tuple[str, ...], query: tuple[str, ...], found: tuple[str, ...]) -> None:
        used = [{pair[side] for pair in self.pairs} for side in (0, 1)]
        idle = [lang for asked, seen in zip((support, query), used, strict=True) for lang in asked if lang not in seen]
        if idle or not self.pairs:
            which = (
                f"{', '.join(dict.fromkeys(idle))} with another language" if idle else f"any two of {', '.join(found)}"
            )
            raise NLPMetaError(
                f"Episodes of {self.shape.n_way.low} ways, {self.shape.n_shot.high} shots and {self.shape.n_query} "
                f"query texts cannot be drawn from {which}: too few classes have enough distinct sentences in both. "
                "Lower n_way, n_shot or n_query, or ask for other languages."
            )


def _asked(asked: Sequence[str] | None, available: tuple[str, ...]) -> tuple[str, ...]:
    if asked is None:
        return ()
    if not asked:
        raise NLPMetaError("A list of languages must name at least one; leave it out to mean all.")
    return tuple(dict.fromkeys(languages.match(lang, available, where="The pool") for lang in asked))
