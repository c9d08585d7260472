"""Parts of a pool, and published folds."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timezone

import numpy as np

from nlpmeta.data import Column, Episode, LabeledTexts, languages
from nlpmeta.data.languages import UnknownLanguageError
from nlpmeta.episodes import Sampler, fingerprints, generator, next_stream
from nlpmeta.episodes.raw_texts import words_of
from nlpmeta.errors import DataError, NLPMetaError


def leave_out(
    pool: LabeledTexts,
    *,
    langs: Iterable[str] = (),
    labels: Iterable[str] = (),
    ids: Iterable[str] = (),
    texts: Iterable[str] = (),
) -> LabeledTexts:
    """The pool without the rows that are on any of the lists, and without classes that have no row left.

    A list may name what the pool does not have, so that one list serves several pools.

    Args:
        pool: the texts.
        langs: languages in any spelling (``sw``, ``swh_Latn``, ``Swahili``); what has a code of its own is a
            language of its own (``arz`` is not ``ar``).
        labels: label names.
        ids: ids of rows; of parallel rows in all languages.
        texts: texts, compared after normalisation (see ``fingerprint``).

    Raises:
        UnknownLanguageError: if a language is neither in a standard nor in the pool.
        DataError: if languages or ids are listed but the pool does not say those of its rows, or nothing is left.
    """
    barred_langs, barred_labels, barred_ids = set(langs), set(labels), set(ids)
    barred_marks = set(fingerprints(texts))
    keep = np.asarray([name not in barred_labels for name in pool.names()])
    if barred_langs:
        codes = language_codes(pool)
        keep &= ~np.isin(codes, [_asked_code(lang, codes) for lang in sorted(barred_langs)])
    if barred_ids:
        keep &= np.asarray([id_ not in barred_ids for id_ in required(pool, "ids")])
    if barred_marks:
        keep &= np.asarray([mark not in barred_marks for mark in fingerprints(pool.texts)])
    if not keep.any():
        lists = {"langs": barred_langs, "labels": barred_labels, "ids": barred_ids, "texts": barred_marks}
        sizes = ", ".join(f"{len(found)} {name}" for name, found in lists.items() if found)
        raise DataError(f"Nothing remains of {len(pool)} texts after leaving out {sizes}; shorten a list.")
    return _part(pool, np.flatnonzero(keep).tolist())


def split_by(pool: LabeledTexts, column: Column) -> dict[str, LabeledTexts]:
    """One pool for each value of a column, in sorted order; languages by their shortest code, however spelt.

    Raises:
        DataError: if the pool does not have the column.
    """
    return {value: _part(pool, rows) for value, rows in rows_by(pool, column).items()}


def rows_by(pool: LabeledTexts, column: Column) -> dict[str, list[int]]:
    """The rows of each value of a column, as ``split_by``.

    Raises:
        DataError: if the pool does not have the column.
    """
    values = language_codes(pool) if column == "langs" else required(pool, column)
    rows: dict[str, list[int]] = {value: [] for value in sorted(set(values))}
    for row, value in enumerate(values):
        rows[value].append(row)
    return rows


def time_windows(pool: LabeledTexts, *, n_windows: int) -> list[list[int]]:
    """The rows of ``n_windows`` stretches of time, the earliest first, as many texts in each as in the others.

    Raises:
        DataError: if the pool has no times, one cannot be read, or there are fewer texts than windows.
    """
    if not 1 <= n_windows <= len(pool):
        raise DataError(f"{len(pool)} texts cannot be divided into {n_windows} windows of time.")
    moments = np.asarray([_moment(time) for time in required(pool, "times")])
    return [rows.tolist() for rows in np.array_split(np.argsort(moments, kind="stable"), n_windows)]


def language_codes(pool: LabeledTexts) -> tuple[str, ...]:
    """The shortest code of the language of each row: ``en-US`` and ``eng`` are both ``en``.

    Raises:
        DataError: if the pool does not say its languages.
    """
    langs = required(pool, "langs")
    code = {spelling: language_code(spelling) for spelling in set(langs)}
    return tuple(code[spelling] for spelling in langs)


def language_code(spelling: str) -> str:
    """The shortest code of a language; a spelling that no standard knows stands for itself."""
    try:
        return languages.parse(spelling).code
    except UnknownLanguageError:
        return spelling.casefold()


def required(pool: LabeledTexts, column: Column) -> tuple[str, ...]:
    """A column that the task at hand cannot do without.

    Raises:
        DataError: if the pool does not have it.
    """
    values = pool.column(column)
    if values is None:
        raise DataError(f"This needs the column {column!r}, which the pool of {len(pool)} texts does not have.")
    return values


def _asked_code(asked: str, known: Sequence[str]) -> str:
    code = language_code(asked)
    return code if code in known else languages.parse(asked).code


def _moment(time: str) -> float:
    """Seconds since 1970 of an ISO 8601 time (UTC where it names no zone) or of a number of seconds."""
    try:
        moment = datetime.fromisoformat(time.strip().replace("Z", "+00:00"))
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    except ValueError:
        pass
    try:
        seconds = float(time)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise DataError(f"{time!r} is not a time; give ISO 8601 (2015-05-29T02:26:10) or seconds since 1970.")
    return seconds


def _part(pool: LabeledTexts, rows: Sequence[int]) -> LabeledTexts:
    return pool.select(rows).without_empty_classes()


_SMALLER = 0.25  # of the texts of a class are in the smaller half at least


def split_classes(pool: LabeledTexts, *, need: int) -> LabeledTexts:
    """The same texts with finer labels: ``alarm_set with weekend`` and ``alarm_set without weekend``.

    Of the words that a quarter to three quarters of the texts of a class have, the one is taken that says most about
    the class: its share there times the logarithm of how much more frequent it is there than in all texts; of equals
    the first in the alphabet. A class without such a word, or with fewer than ``need`` texts on one side, stays whole.
    Words are runs of two or more letters, case aside. Best on texts of one language at a time.

    Source: the idea of making further tasks from the labels that there are is that of Yao, Zhang and Finn, ICLR 2022
    (arXiv:2106.02695). Where we differ: labels are made finer, texts are not mixed.

    Args:
        pool: labelled texts.
        need: how many texts a class must have, support and query together.
    """
    words = [frozenset(words_of(text)) for text in pool.texts]
    of_class: list[list[int]] = [[] for _ in pool.label_names]
    for row, label in enumerate(pool.labels):
        of_class[label].append(row)
    everywhere = Counter(word for each in words for word in each)
    finer = list(pool.names())
    for name, rows in zip(pool.label_names, of_class, strict=True):
        word = _telling_word([words[row] for row in rows], everywhere, len(pool), need)
        if word is not None:
            for row in rows:
                finer[row] = f"{name} {'with' if word in words[row] else 'without'} {word}"
    names = tuple(dict.fromkeys(finer))
    number = {name: label for label, name in enumerate(names)}
    return replace(pool, labels=tuple(number[name] for name in finer), label_names=names)


def _telling_word(texts: list[frozenset[str]], everywhere: Counter[str], n_texts: int, need: int) -> str | None:
    """The word that a class is split by."""
    least = max(need, math.ceil(_SMALLER * len(texts)))
    counts = Counter(word for each in texts for word in each)
    able = [word for word, count in counts.items() if least <= count <= len(texts) - least]
    if not able:
        return None

    def says(word: str) -> float:
        share = counts[word] / len(texts)
        return share * math.log(share * n_texts / everywhere[word])

    return min(able, key=lambda word: (-says(word), word))


class ShuffledDraws:
    """The support sets of the Massive Text Embedding Benchmark: the same texts, given the same table and seed.

    Before each draw the order of the training rows is shuffled once more, always by the same permutation, and the first
    ``n_shot`` rows of each class are taken; a class with fewer gives all it has. The query set is all of ``test``.

    Source: Muennighoff et al., EACL 2023 (arXiv:2210.07316), the classification task of the package ``mteb`` 1 and 2.
    Where we differ: a row whose text is also in ``test`` is skipped.

    Raises:
        DataError: if no training row is left, or no class of them is in ``test``.
    """

    def __init__(self, pool: LabeledTexts, test: LabeledTexts, *, n_shot: int, seed: int) -> None:
        barred = set(fingerprints(test.texts))
        self._pool, self.n_shot = pool, n_shot
        self._barred = np.array([mark in barred for mark in fingerprints(pool.texts)])
        kept = pool.select(np.flatnonzero(~self._barred).tolist()).without_empty_classes()
        self.label_names = kept.label_names
        self._test = test.with_classes(self.label_names)
        self._permutation = np.random.RandomState(seed).permutation(len(pool))  # noqa: NPY002  # the one that MTEB uses

    def episode(self, index: int) -> Episode:
        """Draw ``index``: the support in the order of the draw, the query in the order of the data."""
        order = np.arange(len(self._pool))
        for _ in range(index + 1):
            order = order[self._permutation]
        taken: Counter[int] = Counter()
        rows = []
        for row in order[~self._barred[order]].tolist():
            label = self._pool.labels[row]
            if taken[label] < self.n_shot:
                taken[label] += 1
                rows.append(row)
        return Episode(self._pool.select(rows).with_classes(self.label_names), self._test)


class InTurn:
    """``n_each`` episodes of each sampler, one sampler after the other.

    Raises:
        NLPMetaError: if there is no sampler or ``n_each`` is not positive.
    """

    def __init__(self, samplers: Sequence[Sampler], n_each: int) -> None:
        if not samplers or n_each < 1:
            raise NLPMetaError(f"At least one sampler and one episode are needed; got {len(samplers)} and {n_each}.")
        self.samplers, self.n_each = tuple(samplers), n_each

    def episode(self, index: int) -> Episode:
        """Episode ``index`` of all; each sampler gets numbers that no other gets."""
        return self.samplers[index // self.n_each % len(self.samplers)].episode(index)


class WithOutOfScope:
    """The episodes of a sampler, each with the same texts out of scope added."""

    def __init__(self, sampler: Sampler, texts: Sequence[str]) -> None:
        self._sampler, self._texts = sampler, tuple(texts)

    def episode(self, index: int) -> Episode:
        """Episode ``index`` of the wrapped sampler, with texts out of scope."""
        plain = self._sampler.episode(index)
        return Episode(plain.support, plain.query, self._texts)


class StreamSampler:
    """The episodes of another sampler with their support in random order, as it would come in over time."""

    def __init__(self, sampler: Sampler, *, seed: int) -> None:
        self._sampler, self._seed, self.stream = sampler, seed, next_stream(sampler)

    def episode(self, index: int) -> Episode:
        """Episode ``index``: the texts of its support are presented in their order."""
        episode = self._sampler.episode(index)
        order = generator(self._seed, index, stream=self.stream).permutation(len(episode.support))
        return replace(episode, support=episode.support.select([int(row) for row in order]))
