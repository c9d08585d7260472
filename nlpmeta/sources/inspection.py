"""What is wrong with a data set before anybody trains on it, and whether two tables go together."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from nlpmeta.data import LabeledTexts
from nlpmeta.data.labels import folded
from nlpmeta.episodes.base import Known, fingerprints
from nlpmeta.errors import DataError, visible
from nlpmeta.languages import parse
from nlpmeta.sources.base import Source

FEW = 5


@dataclass(frozen=True)
class Part:
    """A split of one language of a source; ``source`` is empty if there is only one source."""

    split: str
    texts: LabeledTexts
    lang: str | None = None
    source: str = ""

    @property
    def name(self) -> str:
        """Such as ``massive/sw-KE/train``, without what is not known."""
        return "/".join(filter(None, (self.source, self.lang, self.split)))

    def comparable(self, other: "Part") -> bool:
        """Whether both may hold the same text: the same language, in any spelling if the sources differ."""
        if self.lang is None or other.lang is None or self.lang == other.lang:
            return True
        return self.source != other.source and parse(self.lang) == parse(other.lang)


@dataclass(frozen=True)
class PartReport:
    """Counts of one part.

    ``exact`` and ``normalised`` are the texts that repeat an earlier one of the same part, as they stand and after
    normalisation (case, digits, white space); ``conflicting`` the distinct normalised texts under several labels;
    ``small_classes`` the classes with fewer than ``few`` distinct texts.
    """

    name: str
    texts: int
    classes: int
    exact: int
    normalised: int
    conflicting: int
    small_classes: dict[str, int]


@dataclass(frozen=True)
class Overlap:
    """How many texts of ``second`` also occur in ``first``, as they stand and after normalisation.

    ``label_differs`` of the latter have a label there that they do not have here.
    """

    first: str
    second: str
    exact: int
    normalised: int
    label_differs: int


@dataclass(frozen=True)
class SplitIds:
    """Ids that are in one split in one language and in another split in another language: translated leaks."""

    count: int
    languages: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class DataReport:
    """Everything that ``inspect_parts`` found; ``split_ids`` is ``None`` where texts have no ids."""

    few: int
    parts: tuple[PartReport, ...]
    overlaps: tuple[Overlap, ...]
    split_ids: SplitIds | None

    @property
    def is_clean(self) -> bool:
        """Whether no text is in two parts, contradicts another or repeats one."""
        within = any(part.normalised or part.conflicting for part in self.parts)
        across = any(each.normalised for each in self.overlaps)
        return not within and not across and not (self.split_ids and self.split_ids.count)


def inspect_parts(parts: Sequence[Part], *, few: int = FEW) -> DataReport:
    """Count repeated texts within each part and across parts of the same language, and what else can hurt.

    Args:
        parts: splits, languages or files; parts in different languages are not compared text by text.
        few: classes with fewer distinct texts than this are listed.

    Raises:
        DataError: if there are no parts.
    """
    if not parts:
        raise DataError("There is nothing to check.")
    indexed = [_Index(part) for part in parts]
    pairs = [(a, b) for a, b in combinations(indexed, 2) if a.part.comparable(b.part)]
    return DataReport(
        few=few,
        parts=tuple(each.report(few) for each in indexed),
        overlaps=tuple(_overlap(first, second) for first, second in pairs),
        split_ids=_split_ids(parts),
    )


def parts_of(source: Source, *, lang: str | None = None, without: Iterable[str] = (), named: str = "") -> list[Part]:
    """Every split of every language of a source (of one language, if asked), except the splits ``without``.

    Args:
        source: where the texts come from.
        lang: only this language.
        without: names of splits to leave out.
        named: what to call the source, where there are several.

    Raises:
        UnknownLanguageError: if the source does not have the language.
        DataError: if nothing is left or something cannot be read.
    """
    langs: Sequence[str | None] = source.languages() or (None,)
    if lang is not None:
        langs = [source.spelling(lang)]
    left_out = set(without)
    return [
        Part(split, source.load(each, split), each, named)
        for each in langs
        for split in source.splits(each)
        if split not in left_out
    ]


class _Index:
    """The texts of a part, looked up as they stand and by fingerprint."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.texts = Counter(part.texts.texts)
        self.marks = fingerprints(part.texts.texts)
        self.labels: dict[str, set[str]] = defaultdict(set)
        for mark, name in zip(self.marks, part.texts.names(), strict=True):
            self.labels[mark].add(name)

    def report(self, few: int) -> PartReport:
        total, names = len(self.marks), self.part.texts.label_names
        distinct = Counter(name for labels in self.labels.values() for name in labels)
        return PartReport(
            name=self.part.name,
            texts=total,
            classes=len(names),
            exact=total - len(self.texts),
            normalised=total - len(self.labels),
            conflicting=sum(len(labels) > 1 for labels in self.labels.values()),
            small_classes={name: distinct[name] for name in names if distinct[name] < few},
        )


def _overlap(first: _Index, second: _Index) -> Overlap:
    shared = [row for row, mark in enumerate(second.marks) if mark in first.labels]
    names = second.part.texts.names()
    return Overlap(
        first=first.part.name,
        second=second.part.name,
        exact=sum(text in first.texts for text in second.part.texts.texts),
        normalised=len(shared),
        label_differs=sum(bool(first.labels[second.marks[row]] - {names[row]}) for row in shared),
    )


def _split_ids(parts: Sequence[Part]) -> SplitIds | None:
    """Ids that are in different splits in different languages of the same source."""
    where: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    for part in parts:
        for each in part.texts.ids or ():
            where[part.source, each].add((part.lang or "", part.split))
    if not where:
        return None
    torn = {
        each: {lang for lang, _ in places}
        for each, places in where.items()
        if len({split for _, split in places}) > 1 and len({lang for lang, _ in places}) > 1
    }
    return SplitIds(len(torn), len(set().union(*torn.values())), tuple(sorted(each for _, each in torn)[:5]))


_WHOLE = re.compile(r"([+-]?\d+)\.0*")
_MOST_NAMED = 10  # labels, in a message


def check_apart(data: str, test_data: str) -> None:
    """Refuse one file as both.

    Raises:
        DataError: names it.
    """
    first, second = Path(data), Path(test_data)
    if data == test_data or (first.exists() and second.exists() and first.samefile(second)):
        raise DataError(
            f"--test-data is the same as --data ({data}): no text would be left to learn from that is not scored. "
            "Leave --test-data out: the rest of the data, or folds of it, are scored then."
        )


def paired(pool: LabeledTexts, test: LabeledTexts, *, data: str, test_data: str) -> tuple[LabeledTexts, list[str]]:
    """The test texts with the label names of ``pool``, and what is to be said about it.

    Names that differ only in white space, Unicode form or how a whole number is written (``1`` and ``1.0``) are one.

    Args:
        pool: the texts to learn from.
        test: the texts to score on.
        data: what to call ``pool``.
        test_data: what to call ``test``.

    Raises:
        DataError: if they share no label, or every text of ``pool`` is in ``test``; names both and their labels.
    """
    here, there = _used(pool), _used(test)
    same = _renamed(there, here)
    notes = []
    if same:
        pairs = ", ".join(f"{old!r} is {new!r}" for old, new in list(same.items())[:_MOST_NAMED])
        notes.append(f"{test_data} writes labels otherwise than {data}: {visible(pairs)}.")
        test = replace(test, label_names=tuple(same.get(name, name) for name in test.label_names))
        there = [same.get(name, name) for name in there]
    unknown = [name for name in there if name not in set(here)]
    if len(unknown) == len(there):
        raise DataError(
            f"{test_data} has no label of {data}: {test_data} has {_listed(there)}; {data} has {_listed(here)}."
        )
    if unknown:
        notes.append(
            f"{test_data} has labels without examples in {data}: {_listed(unknown)}; {data} has {_listed(here)}."
        )
    if all(Known(test).has_rows(pool)):
        raise DataError(
            f"All {len(pool)} texts of {data} are in {test_data} too, so nothing is left to learn from. "
            f"Leave --test-data out: the rest of the data, or folds of it, are scored then."
        )
    return test, notes


def _renamed(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """For each name that is not known as it stands the known one that is the same."""
    names, known = list(names), list(known)
    by_form: dict[str, list[str]] = {}
    for name in known:
        by_form.setdefault(_form(name), []).append(name)
    found = {name: by_form.get(_form(name), []) for name in names if name not in set(known)}
    only = {name: each[0] for name, each in found.items() if len(each) == 1 and each[0] not in set(names)}
    return {name: new for name, new in only.items() if list(only.values()).count(new) == 1}


def _form(name: str) -> str:
    word = folded(name)
    whole = _WHOLE.fullmatch(word)
    return str(int(whole[1] if whole else word)) if whole or re.fullmatch(r"[+-]?\d+", word) else word


def _used(data: LabeledTexts) -> list[str]:
    return [name for name, count in data.counts().items() if count]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return visible(", ".join(repr(name) for name in names[:_MOST_NAMED])) + more
