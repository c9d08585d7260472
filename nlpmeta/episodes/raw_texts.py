"""Tasks without labels: which word is missing, and which sentence is this a damaged copy of?"""

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from nlpmeta.data import Episode
from nlpmeta.episodes import Range, Shape, fingerprint, generator
from nlpmeta.episodes.index import grouped
from nlpmeta.errors import NLPMetaError

_WORD = re.compile(r"[^\W\d_]{2,}")
_FEWEST = 3  # words of a text that can be known without one of them
_ALWAYS = 4  # times the texts that an episode needs of a word: what is not too common in any corpus
_SPARE = 2  # times as many words as ways are masked, as some have too few texts that still differ


class MaskedWordSampler:
    """A class is a word: texts that had it, with the mask in its place. No text is twice in an episode.

    Every word of an episode is masked in all of its texts, so that none gives another class away; texts that are then
    the same are used once. Words are runs of two or more letters, case aside; scripts that put no spaces between words
    have few that repeat, and then few classes.

    Source: SMLMT, Bansal, Jha, Munkhdalai and McCallum, EMNLP 2020 (arXiv:2009.08445), section 3.1. Where we differ:
    the words of an episode are masked in each other's texts too, and frequent words are left out.

    Args:
        texts: the only thing that is read.
        n_way: words of an episode.
        n_shot: support texts of each word.
        n_query: query texts of each word.
        seed: decides the draws.
        mask: what stands for a masked word: the mask token of the encoder.
        most_common: words in more than this share of the texts are left out; they say little of what a text is about.

    Raises:
        NLPMetaError: if too few words are in enough texts.
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
        most_common: float = 0.02,
    ) -> None:
        self.texts, self.seed, self.mask = tuple(texts), seed, mask
        self.shape = Shape.of(n_way, n_shot, n_query)
        rows: dict[str, list[int]] = defaultdict(list)
        for row, text in enumerate(self.texts):
            words = words_of(text)
            for word in sorted(set(words)) if len(words) >= _FEWEST else ():
                rows[word].append(row)
        most = max(_ALWAYS * self.shape.need, int(most_common * len(self.texts)))
        self._rows = {word: found for word, found in rows.items() if self.shape.need <= len(found) <= most}
        self.words = tuple(sorted(self._rows))
        """The words that can be drawn."""
        if len(self.words) < self.shape.n_way.low:
            raise NLPMetaError(
                f"{len(self.words)} words are in {self.shape.need} to {most} of the {len(self.texts)} texts; tasks of "
                f"masked words, of {self.shape.n_way.low} ways, need more texts, fewer ways, or fewer shots."
            )

    def episode(self, index: int) -> Episode:
        """Episode ``index``; support and query texts are grouped by word.

        Raises:
            NLPMetaError: if the words share so few texts that the least number of ways cannot be filled.
        """
        rng = generator(self.seed, index)
        n_way, n_shot = self.shape.n_way.draw(rng, most=len(self.words)), self.shape.n_shot.draw(rng)
        size, seen = n_shot + self.shape.n_query, set[str]()
        words = [self.words[number] for number in rng.permutation(len(self.words))[: _SPARE * n_way]]
        drawn: dict[str, list[str]] = {}
        for word in words:
            found = self._texts_without(words, rng.permuted(self._rows[word]).tolist(), size, seen)
            if len(found) == size:
                drawn[word] = list(found.values())
                seen.update(found)
            if len(drawn) == n_way:
                break
        if len(drawn) < self.shape.n_way.low:
            raise NLPMetaError(f"Only {len(drawn)} words have {size} texts of their own. Lower n_way or n_shot.")
        support, query = ([each[part] for each in drawn.values()] for part in (slice(n_shot), slice(n_shot, size)))
        return Episode(grouped(support, tuple(drawn)), grouped(query, tuple(drawn)))

    def _texts_without(self, words: list[str], rows: list[int], size: int, seen: set[str]) -> dict[str, str]:
        """The first ``size`` of these texts that differ from each other and from those seen, masked, by fingerprint."""
        found: dict[str, str] = {}
        for row in rows:
            text = masked(self.texts[row], words, self.mask)
            mark = fingerprint(text)
            if mark not in seen and mark not in found:
                found[mark] = text
            if len(found) == size:
                break
        return found


def words_of(text: str) -> list[str]:
    """The words of a text, case folded, in their order."""
    return [word.casefold() for word in _WORD.findall(text)]


def masked(text: str, words: Sequence[str], mask: str) -> str:
    """The text with the mask in place of these words (which are case folded)."""
    barred = set(words)
    return _WORD.sub(lambda found: mask if found.group().casefold() in barred else found.group(), text)


_FEWEST_UNITS = 3  # different words (letters, without spaces) of a text that is known when damaged
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
            raise NLPMetaError(f"The share of a text that a view drops must lie between 0 and 1; got {share}.")
        self.seed, self.mask, self.share = seed, mask, share
        self.shape = Shape.of(n_way, n_shot, n_query)
        fewest = max(_FEWEST_UNITS, self.shape.need)  # then there are as many views as are asked for
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
