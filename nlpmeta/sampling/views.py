"""Tasks without labels: which sentence is this a damaged copy of?"""

from collections.abc import Sequence

import numpy as np

from nlpmeta.data import Episode
from nlpmeta.errors import NLPMetaError
from nlpmeta.sampling.base import Range, generator
from nlpmeta.sampling.index import grouped
from nlpmeta.sampling.leaks import fingerprint
from nlpmeta.sampling.shape import Shape

_FEWEST = 3  # different words, or letters where there are no spaces, of a text that can be damaged and still be known
_TRIES = 1000  # views of one text that are drawn for as many as are needed


class SentenceViewSampler:
    """A class is one text; support and query are views of it: a span behind the mask, or words left out.

    A text without spaces is taken letter by letter. No view is the text itself, and no two of an episode are the same.

    Source: the idea of telling a sentence from others by two views of it is that of SimCSE (Gao, Yao and Chen, EMNLP
    2021, arXiv:2104.08821, section 3). Where we differ: views differ in their words, not in the encoder's dropout.

    Args:
        texts: the only thing that is read.
        n_way: texts of an episode.
        n_shot: support views of each.
        n_query: query views of each.
        seed: decides the draws.
        mask: what stands for a masked span: the mask token of the encoder.
        share: about this share of a text is masked or left out.

    Raises:
        NLPMetaError: if there are fewer texts that are long enough than ways, or the share is not between 0 and 1.
    """

    def __init__(
        self,
        texts: Sequence[str],
        *,
        n_way: int | Range,
        n_shot: int | Range,
        n_query: int,
        seed: int,
        mask: str,
        share: float = 0.25,
    ) -> None:
        if not 0 < share < 1:
            raise NLPMetaError(f"The share of a text that a view loses must lie between 0 and 1; got {share}.")
        self.seed, self.mask, self.share = seed, mask, share
        self.shape = Shape.of(n_way, n_shot, n_query)
        fewest = max(_FEWEST, self.shape.need)  # then there are as many views as are asked for
        distinct = {fingerprint(text): text for text in texts}.values()
        self.texts = tuple(text for text in distinct if len(set(map(fingerprint, units_of(text)))) >= fewest)
        """The texts that are long enough."""
        if len(self.texts) < self.shape.n_way.low:
            raise NLPMetaError(
                f"{len(self.texts)} of {len(texts)} texts have {fewest} different words or more; sentence tasks of "
                f"{self.shape.n_way.low} ways need as many."
            )

    def episode(self, index: int) -> Episode:
        """Episode ``index``; support and query views are grouped by text."""
        rng = generator(self.seed, index)
        n_way, n_shot = self.shape.n_way.draw(rng, most=len(self.texts)), self.shape.n_shot.draw(rng)
        drawn = rng.choice(len(self.texts), size=n_way, replace=False)
        seen: set[str] = set()
        views = [self._views(self.texts[row], rng, n_shot + self.shape.n_query, seen) for row in drawn]
        names = tuple(map(str, range(n_way)))
        support, query = ([each[part] for each in views] for part in (slice(n_shot), slice(n_shot, None)))
        return Episode(grouped(support, names), grouped(query, names))

    def _views(self, text: str, rng: np.random.Generator, size: int, seen: set[str]) -> list[str]:
        found: list[str] = []
        for _ in range(_TRIES):
            view = self.view(text, rng)
            mark = fingerprint(view)
            if mark not in seen:
                seen.add(mark)
                found.append(view)
            if len(found) == size:
                return found
        raise NLPMetaError(f"No {size} different views of {text!r} were found. Lower n_shot or n_query.")

    def view(self, text: str, rng: np.random.Generator) -> str:
        """The text with a span masked or words left out, one as likely as the other."""
        units = units_of(text)
        lost = min(len(units) - 1, max(1, round(self.share * len(units))))
        if rng.random() < 1 / 2:
            first = int(rng.integers(len(units) - lost + 1))
            kept = [*units[:first], self.mask, *units[first + lost :]]
        else:
            barred = set(rng.choice(len(units), size=lost, replace=False).tolist())
            kept = [unit for i, unit in enumerate(units) if i not in barred]
        return (" " if " " in text.strip() else "").join(kept)


def units_of(text: str) -> list[str]:
    """The words of a text, or its letters where it has no spaces."""
    return text.split() if " " in text.strip() else list(text.strip())
