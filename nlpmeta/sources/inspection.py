"""What is wrong with a data set before anybody trains on it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from nlpmeta.data import LABEL_SEPARATOR, LabeledTexts
from nlpmeta.data.labels import one_but_for_case
from nlpmeta.data.languages import parse
from nlpmeta.data.multilabel import MultiLabelTexts
from nlpmeta.episodes import fingerprints
from nlpmeta.errors import DataError
from nlpmeta.sources import Source

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
class First:
    """The first row of its kind and the row that it repeats or contradicts: lines of the file, else rows from 1."""

    line: int
    other: int


@dataclass(frozen=True)
class PartReport:
    """Counts of one part.

    ``exact`` and ``normalised`` are the texts that repeat an earlier one of the same part, as they stand and after
    normalisation (case, digits, white space); ``conflicting`` the distinct normalised texts under several labels;
    ``small_classes`` the classes with fewer than ``few`` distinct texts; ``one_but_for_case`` says in words which of
    them differ only in capital letters. ``first`` names a row of ``exact``,
    ``normalised`` and ``conflicting`` where there is one; ``counted_in`` says what its numbers count.
    """

    name: str
    texts: int
    classes: int
    exact: int
    normalised: int
    conflicting: int
    small_classes: dict[str, int]
    one_but_for_case: tuple[str, ...]
    counted_in: Literal["lines", "rows"]
    first: dict[str, First]


@dataclass(frozen=True)
class Overlap:
    """How many texts of ``second`` also occur in ``first``, as they stand and after normalisation.

    ``label_differs`` of the latter have a label there that they do not have here. ``first_rows`` names a row of
    ``second`` for each of these that there is, with the row of ``first`` that it goes with.
    """

    first: str
    second: str
    exact: int
    normalised: int
    label_differs: int
    first_rows: dict[str, First]


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
        Part(split, source.load(each, split, several=True), each, named)
        for each in langs
        for split in source.splits(each)
        if split not in left_out
    ]


class _Index:
    """The texts of a part, looked up as they stand and by fingerprint; ``text_row`` and ``mark_row`` have the first."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.marks, self.names = fingerprints(part.texts.texts), part.texts.names()
        self.labels: dict[str, set[str]] = defaultdict(set)
        self.text_row: dict[str, int] = {}
        self.mark_row: dict[str, int] = {}
        for row, (text, mark, name) in enumerate(zip(part.texts.texts, self.marks, self.names, strict=True)):
            self.labels[mark].add(name)
            self.text_row.setdefault(text, row)
            self.mark_row.setdefault(mark, row)

    def line(self, row: int) -> int:
        """Where a row stands in its file; counted from 1 where the source has no lines."""
        lines = self.part.texts.lines
        return row + 1 if lines is None else int(lines[row])

    def report(self, few: int) -> PartReport:
        total, names = len(self.marks), self.part.texts.label_names
        distinct = Counter(name for labels in self.labels.values() for name in labels)
        if self.part.texts.several:  # labels are sets of them: each is counted by itself
            names = MultiLabelTexts.of(self.part.texts).label_names
            distinct = Counter(name for sets in self.labels.values() for name in set(_taken_apart(sets)))
        return PartReport(
            name=self.part.name,
            texts=total,
            classes=len(names),
            exact=total - len(self.text_row),
            normalised=total - len(self.labels),
            conflicting=sum(len(labels) > 1 for labels in self.labels.values()),
            small_classes={name: distinct[name] for name in names if distinct[name] < few},
            one_but_for_case=tuple(one_but_for_case(names)),
            counted_in="rows" if self.part.texts.lines is None else "lines",
            first=self._first(),
        )

    def _first(self) -> dict[str, First]:
        found: dict[str, First] = {}
        for row, (text, mark, name) in enumerate(zip(self.part.texts.texts, self.marks, self.names, strict=True)):
            same, alike = self.text_row[text], self.mark_row[mark]
            here = {"exact": same < row, "normalised": alike < row, "conflicting": name != self.names[alike]}
            for kind in (kind for kind, holds in here.items() if holds and kind not in found):
                found[kind] = First(self.line(row), self.line(same if kind == "exact" else alike))
        return found


def _taken_apart(sets: Iterable[str]) -> Iterator[str]:
    for each in sets:
        yield from filter(None, each.split(LABEL_SEPARATOR))


def _overlap(first: _Index, second: _Index) -> Overlap:
    shared = [row for row, mark in enumerate(second.marks) if mark in first.labels]
    rows = {
        "exact": [row for row, text in enumerate(second.part.texts.texts) if text in first.text_row],
        "normalised": shared,
        "label_differs": [row for row in shared if first.labels[second.marks[row]] - {second.names[row]}],
    }
    return Overlap(
        first=first.part.name,
        second=second.part.name,
        **{kind: len(found) for kind, found in rows.items()},
        first_rows={kind: _pair(first, second, found[0], kind) for kind, found in rows.items() if found},
    )


def _pair(first: _Index, second: _Index, row: int, kind: str) -> First:
    """A row of ``second`` and the row of ``first`` that it goes with."""
    mark, name = second.marks[row], second.names[row]
    if kind == "exact":
        other = first.text_row[second.part.texts.texts[row]]
    elif kind == "normalised":
        other = first.mark_row[mark]
    else:
        pairs = enumerate(zip(first.marks, first.names, strict=True))
        other = next(i for i, (each, label) in pairs if each == mark and label != name)
    return First(second.line(row), first.line(other))


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
