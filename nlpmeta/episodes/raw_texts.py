"""Tasks without labels: which word is missing, which sentence is this a damaged copy of; words that tell of texts."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nlpmeta.data import Episode, readable_names
from nlpmeta.episodes import Integers, Range, Shape, fingerprint, generator
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


_FEWEST_TEXTS = 2  # of a class that a word must be in to tell of it
_LONGEST_WORD = 24  # letters; longer ones are mostly sentences without spaces, and addresses
_MOST_WORDS, _TOP = 3, 5  # words of a name at most, drawn from so many of the most telling
_LEAST_WEIGHT = 1 / 3  # of a word, as a share of that of the most telling one


class TellingWords:
    """Names classes of texts by their most telling words, so that names are learned where no class has one.

    The words of one draw are of one group of texts (roughly a language), as the names of real classes are; a class with
    no word of it takes those of all groups. A word is in the name of one class only: the one that it tells most of.

    Source: class-based TF-IDF, Grootendorst 2022, equation 2 (arXiv:2203.05794). Where we differ: a word counts once a
    text, counts are shares of those of the class, and must come from two texts at least.

    Words end at white space. Scripts without spaces have few that repeat, and classes of such texts are not named.

    Args:
        texts: all that there are.
        groups: a number for each text, ``(n,)``.
        n_classes: into which all texts are divided.
    """

    def __init__(self, texts: Sequence[str], groups: Integers, n_classes: int) -> None:
        from sklearn.feature_extraction.text import CountVectorizer

        words = [sorted(set(filter(None, map(_bare, text.casefold().split())))) for text in texts]
        often = Counter(word for each in words for word in each if len(word) <= _LONGEST_WORD)
        found = [word for word, count in often.items() if count >= _FEWEST_TEXTS and readable_names((word,)) == (word,)]
        self.words = tuple(sorted(found))
        """The words that a name can have."""
        self._n_groups = int(groups.max()) + 1
        if self.words:
            counter = CountVectorizer(analyzer=list, vocabulary=list(self.words), binary=True, dtype=np.int64)
            self._has = counter.transform(words)
            by_group = np.stack([self._counts(np.flatnonzero(groups == group)) for group in range(self._n_groups)])
            self._rarity = np.log1p(by_group.sum() / n_classes / by_group.sum(0))
            self._group = (by_group / np.maximum(by_group.sum(1, keepdims=True), 1)).argmax(0)

    def names(self, members: Sequence[Integers], rng: np.random.Generator) -> tuple[str, ...]:
        """A name of one to three words for each class; nothing for one that no word tells from the others.

        Args:
            members: the rows of each class that words may be taken from.
            rng: draws the group, how many words, and which of the most telling.
        """
        group, n_words = int(rng.integers(self._n_groups)), int(rng.integers(1, _MOST_WORDS + 1))
        if not self.words:
            return ("",) * len(members)
        weights = self._weights(members)
        of_group = weights * (self._group == group)
        names = []
        for each in np.where(of_group.any(1, keepdims=True), of_group, weights):
            order = np.argsort(-each, kind="stable")[:_TOP]
            order = order[(each[order] > 0) & (each[order] >= _LEAST_WEIGHT * each[order[0]])]
            names.append(" ".join(self.words[word] for word in order[np.sort(rng.permutation(len(order))[:n_words])]))
        return tuple(names)

    def _weights(self, members: Sequence[Integers]) -> NDArray[np.float64]:
        """How much each word tells of each class, ``(n_way, n_words)``; 0 where it tells more of another one."""
        counts = np.stack([self._counts(rows) for rows in members])
        weights: NDArray[np.float64] = counts / np.maximum(counts.sum(1, keepdims=True), 1) * self._rarity
        weights[counts < _FEWEST_TEXTS] = 0
        weights[np.arange(len(weights))[:, None] != weights.argmax(0)] = 0
        return weights

    def _counts(self, rows: Integers) -> Integers:
        """How many of these texts have each word, ``(n_words,)``."""
        return np.asarray(self._has[rows].sum(0), dtype=np.int64).ravel()


def _bare(word: str) -> str:
    """The word without the marks before and behind it."""
    inner = [place for place, letter in enumerate(word) if unicodedata.category(letter)[0] in "LMN"]
    return word[inner[0] : inner[-1] + 1] if inner else ""
