"""The contract of a sampler, which texts may not be on both sides of an episode, and the one k-fold."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.errors import NLPMetaError, NotEnoughExamplesError

LEAF_STREAMS = 8
"""Streams below this number belong to samplers that draw from data; wrappers take one above."""
_WORD = 2**64


class Sampler(Protocol):
    """Anything that turns an index into an episode, always the same one; samplers compose by wrapping samplers."""

    def episode(self, index: int) -> Episode:
        """Episode ``index``, whatever was drawn before and in whichever process."""
        ...


@dataclass(frozen=True)
class Range:
    """A size that each episode draws for itself, uniformly, both ends included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.high:
            raise NLPMetaError(f"A size range must have 1 <= low <= high; got {self.low} to {self.high}.")

    @classmethod
    def of(cls, size: "int | Range") -> "Range":
        """A fixed size as a range of one."""
        return size if isinstance(size, Range) else cls(size, size)

    def draw(self, rng: np.random.Generator, *, most: int | None = None) -> int:
        """One size, at most ``most`` where that is less than ``high`` (it must not be less than ``low``)."""
        high = self.high if most is None else min(self.high, most)
        return self.low if self.low == high else int(rng.integers(self.low, high + 1))


def generator(seed: int, index: int, *, stream: int = 0) -> np.random.Generator:
    """Random numbers that depend on ``(seed, index, stream)`` alone.

    Philox is a counter-based generator (Salmon et al., SC 2011): the seed is its key and the index the high words of
    its counter, so that no two episodes share a block of numbers. ``stream`` sets apart draws of one episode that must
    not move each other.

    Raises:
        NLPMetaError: if the seed or the index is negative or does not fit into 64 bits.
    """
    if not (0 <= seed < _WORD and 0 <= index < _WORD):
        raise NLPMetaError(f"Seed and episode index must lie in 0..2**64 - 1; got seed {seed}, index {index}.")
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, index, stream]))


def next_stream(*samplers: Sampler) -> int:
    """A stream that nothing inside ``samplers`` draws from, for the wrapper around them.

    A wrapper keeps it as its attribute ``stream``. So wrappers of one kind and one seed can be nested without their
    draws moving together.
    """
    return 1 + max(int(getattr(sampler, "stream", LEAF_STREAMS)) for sampler in samplers)


ADVICE = (
    "Add examples, or lower n_shot, n_query or n_way. Texts that agree after normalisation, and rows with the same id, "
    "count as one."
)


@dataclass(frozen=True)
class Shape:
    """N ways, K shots and the query texts of each class.

    Raises:
        NLPMetaError: if a class is to have no query text.
    """

    n_way: Range
    n_shot: Range
    n_query: int

    def __post_init__(self) -> None:
        if self.n_query < 1:
            raise NLPMetaError(f"n_query must be at least 1 text of each class; got {self.n_query}.")

    @classmethod
    def of(cls, n_way: int | Range, n_shot: int | Range, n_query: int) -> "Shape":
        """Sizes of which some may be fixed."""
        return cls(Range.of(n_way), Range.of(n_shot), n_query)

    @property
    def need(self) -> int:
        """Sentences that a class must have: the most shots and the query."""
        return self.n_shot.high + self.n_query

    def require(self, counts: Mapping[str, int], *, n_way: int, where: str) -> None:
        """Check that ``n_way`` classes have enough sentences.

        Args:
            counts: sentences by label name, of the classes that there are.
            n_way: how many must be rich enough.
            where: what the classes belong to, for the message.

        Raises:
            NLPMetaError: if there are fewer classes.
            NotEnoughExamplesError: if too few of them are rich enough.
        """
        if len(counts) < n_way:
            names = ", ".join(map(repr, counts))
            raise NLPMetaError(
                f"Episodes of {n_way} ways were requested but {where} has {len(counts)} classes: {names}."
            )
        short = {name: count for name, count in counts.items() if count < self.need}
        if len(counts) - len(short) < n_way:
            raise NotEnoughExamplesError(short, self.need, advice=ADVICE)


_DIGIT = re.compile(r"\d")
_SPACE = re.compile(r"\s+")


def fingerprint(text: str) -> str:
    """The text after Unicode normalisation (NFKC), case folding, digit masking and folding of white space."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _SPACE.sub(" ", _DIGIT.sub("0", unicodedata.normalize("NFKC", folded))).strip()


def fingerprints(texts: Iterable[str]) -> list[str]:
    """One fingerprint a text, in order."""
    return [fingerprint(text) for text in texts]


def most_have(counts: Iterable[int], least: int) -> bool:
    """Whether more than half of the classes have at least so many examples, so that the others can do without."""
    enough = [count >= least for count in counts]
    return 2 * sum(enough) > len(enough)


def held_out_rows(texts: Sequence[str], labels: Sequence[int], *, one_in: int, least: int) -> list[int]:
    """Rows to hold out: one in so many different texts of each class, with all that read the same.

    Classes with fewer hold out one. Nothing is held out where half of the classes or more have fewer than ``least``, or
    where a class would have nothing left.
    """
    rng, out, pairs = np.random.default_rng(0), set[str](), list(zip(fingerprints(texts), labels, strict=True))
    classes = {label: list(dict.fromkeys(t for t, each in pairs if each == label)) for label in sorted(set(labels))}
    if not most_have(map(len, classes.values()), least):
        return []
    for own in classes.values():
        out |= {own[row] for row in rng.permutation(len(own))[: max(len(own) // one_in, 1)]}
    left = {label for text, label in pairs if text not in out}
    return [row for row, (text, _) in enumerate(pairs) if text in out] if left == set(labels) else []


class Known:
    """What some texts can be recognised by: their fingerprints, and the languages that each id is there in."""

    def __init__(self, *parts: LabeledTexts) -> None:
        self._marks = {mark for part in parts for mark in fingerprints(part.texts)}
        self._languages: dict[str, set[str]] = defaultdict(set)
        for part in parts:
            for id_, lang in zip(part.ids or (), part.langs or (), strict=False):
                self._languages[id_].add(lang)

    def has(self, mark: str, *, id_: str | None = None, lang: str | None = None) -> bool:
        """Whether the text with this fingerprint is known, or its translation: the same id in another language.

        Texts may come from elsewhere, numbered independently, so an id tells nothing within one language, or where the
        language is unknown.
        """
        translated = id_ is not None and lang is not None and bool(self._languages.get(id_, set()) - {lang})
        return mark in self._marks or translated

    def has_rows(self, other: LabeledTexts) -> list[bool]:
        """``has``, for each row of ``other``."""
        none = (None,) * len(other)
        rows = zip(fingerprints(other.texts), other.ids or none, other.langs or none, strict=True)
        return [self.has(mark, id_=id_, lang=lang) for mark, id_, lang in rows]


def leaked_texts(episode: Episode) -> tuple[str, ...]:
    """Query and out-of-scope texts that the support has too, as the same text or as a translation; there must be none.

    The samplers of this package never draw such an episode; this is for checking one that was made otherwise.
    """
    known = Known(episode.support)
    in_query = (text for text, leaks in zip(episode.query.texts, known.has_rows(episode.query), strict=True) if leaks)
    return (*in_query, *(text for text in episode.out_of_scope if known.has(fingerprint(text))))


Integers: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sentences:
    """The sentences of a pool, numbered in the order of their first rows."""

    of_row: Integers
    """The sentence of each row, ``(n,)``."""
    labels: Integers
    """The class of each sentence, ``(n_sentences,)``: that of most of its rows, of the first of these if several."""


def sentences_of(pool: LabeledTexts) -> Sentences:
    """Rows are one sentence if their texts agree after normalisation or their ids are equal, directly or in a chain.

    An episode that takes a sentence at most once then has neither on both sides. A sentence has one class, so that a
    text that occurs under two labels is drawn under one of them only.
    """
    keys: list[list[Hashable]] = [[(mark, "text") for mark in fingerprints(pool.texts)]]
    if pool.ids is not None:
        keys.append([(id_, "id") for id_ in pool.ids])
    roots = _connected(keys)
    _, first, of_row = np.unique(roots, return_index=True, return_inverse=True)
    return Sentences(of_row.astype(np.int64), _majority(of_row, np.asarray(pool.labels), first))


def _connected(keys: list[list[Hashable]]) -> Integers:
    """For each row the first row that it shares a key with, directly or in a chain (union-find, Tarjan 1975)."""
    parent = list(range(len(keys[0])))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    for column in keys:
        first: dict[Hashable, int] = {}
        for row, key in enumerate(column):
            a, b = root(row), root(first.setdefault(key, row))
            parent[max(a, b)] = min(a, b)
    return np.asarray([root(row) for row in range(len(parent))], dtype=np.int64)


def _majority(of_row: Integers, labels: Integers, first: Integers) -> Integers:
    """The most frequent label of each sentence; a loop over the few that have several."""
    chosen = labels[first].astype(np.int64)
    mixed = np.unique(of_row[labels != chosen[of_row]])
    votes: dict[int, Counter[int]] = {int(number): Counter() for number in mixed}
    for row in np.flatnonzero(np.isin(of_row, mixed)):
        votes[int(of_row[row])][int(labels[row])] += 1
    for number, counter in votes.items():
        chosen[number] = counter.most_common(1)[0][0]
    return chosen


def by_label(labels: Integers) -> list[Integers]:
    """The rows of each class that occurs in ``labels`` ``(n,)``, classes in ascending order."""
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def deal_folds(
    classes: Sequence[Integers],
    n_folds: int,
    *,
    n_rows: int,
    order: Callable[[Integers], Integers] | None = None,
    carry_below: float = 0,
) -> Integers:
    """The fold of each row, ``(n_rows,)``; -1 for a row that is in none of ``classes``.

    Args:
        classes: the rows of each class, in the order in which classes are dealt.
        n_folds: how many folds.
        n_rows: how many rows there are.
        order: reorders the folds that were dealt to a class before its rows take them, such as a shuffle; by default
            the first row gets the first.
        carry_below: a class with fewer rows than this starts where the last such class ended, so that small classes
            do not all land in the first folds; larger classes start at fold 0.
    """
    folds, turn = np.full(n_rows, -1, dtype=np.int64), 0
    for rows in classes:
        carries = len(rows) < carry_below
        dealt = (np.arange(len(rows)) + turn * carries) % n_folds
        folds[rows] = dealt if order is None else order(dealt)
        turn += len(rows) * carries
    return folds
