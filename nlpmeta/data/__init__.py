"""The values that travel through the package: labelled texts, and an episode made of them. Frozen, self-checking."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Literal, Protocol, get_args

from nlpmeta.errors import DataError

Label = str | int | float | bool
"""What users may name a class."""
Column = Literal["langs", "domains", "ids", "users", "times", "lines"]
COLUMNS: tuple[Column, ...] = get_args(Column)
_OPAQUE = re.compile(r"(class|label|category|cat|intent|topic|group|type|[a-z])?\d+", re.IGNORECASE)
_FEWEST_LETTERS = 2
LABEL_SEPARATOR = "\x1f"
"""What stands between the labels of one text in a label name of a table with several labels per text."""


@dataclass(frozen=True)
class LabeledTexts:
    """Texts with integer labels that index ``label_names``; the other columns are there where the source has them.

    Raises:
        DataError: if there are no texts, lengths differ, a label name repeats, or a label is out of range.
    """

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    label_names: tuple[str, ...]
    langs: tuple[str, ...] | None = None
    domains: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None
    users: tuple[str, ...] | None = None
    times: tuple[str, ...] | None = None
    lines: tuple[str, ...] | None = field(default=None, compare=False, repr=False)
    """Where each text stood in its file, for messages; two tables with the same texts are equal all the same."""
    descriptions: tuple[tuple[str, ...], ...] | None = field(default=None, kw_only=True)
    """What each class is in plain words, none, one or several texts a class, where such words were given."""
    by_name: bool = field(default=False, kw_only=True)
    """Whether a class without a text is known by its name and descriptions; there may then be no text at all."""
    several: bool = field(default=False, kw_only=True)
    """Whether each label name is a set of labels; ``multilabel.MultiLabelTexts`` takes the sets apart."""

    def __post_init__(self) -> None:
        if not self.texts and not (self.by_name and self.label_names):
            raise DataError("There are no texts.")
        if len(self.texts) != len(self.labels):
            raise DataError(f"{len(self.texts)} texts came with {len(self.labels)} labels.")
        if len(set(self.label_names)) != self.n_way:
            repeated = [name for name, count in Counter(self.label_names).items() if count > 1]
            raise DataError(f"Label names must differ; these repeat: {repeated}.")
        if self.labels and (min(self.labels) < 0 or max(self.labels) >= self.n_way):
            raise DataError(f"Labels must lie in 0..{self.n_way - 1}; got {min(self.labels)}..{max(self.labels)}.")
        if self.descriptions is not None and len(self.descriptions) != self.n_way:
            raise DataError(f"{self.n_way} classes came with descriptions of {len(self.descriptions)}.")
        for name in COLUMNS:
            column = self.column(name)
            if column is not None and len(column) != len(self.texts):
                raise DataError(f"{len(self.texts)} texts came with {len(column)} values of {name!r}.")

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def n_way(self) -> int:
        """The number of classes, those without a text included."""
        return len(self.label_names)

    def column(self, name: Column) -> tuple[str, ...] | None:
        """One of the optional columns, ``None`` where the source has none."""
        column: tuple[str, ...] | None = getattr(self, name)
        return column

    def names(self) -> list[str]:
        """The label name of every text, in order."""
        return [self.label_names[label] for label in self.labels]

    def counts(self) -> dict[str, int]:
        """How many texts each class has, zero included, in the order of ``label_names``."""
        found = Counter(self.labels)
        return {name: found[label] for label, name in enumerate(self.label_names)}

    def rows_in_order(self) -> list[int]:
        """The rows by class and text, so that the order in which they came has no part in what is made of them."""
        return sorted(range(len(self)), key=lambda row: (self.labels[row], self.texts[row]))

    def select(self, rows: Sequence[int]) -> "LabeledTexts":
        """The given rows, in the given order, with the same label names."""
        return LabeledTexts(
            tuple(self.texts[i] for i in rows),
            tuple(self.labels[i] for i in rows),
            self.label_names,
            *(_take(self.column(name), rows) for name in COLUMNS),
            descriptions=self.descriptions,
            by_name=self.by_name,
            several=self.several,
        )

    def descriptions_of(self, label_names: Sequence[str]) -> tuple[tuple[str, ...], ...] | None:
        """The descriptions of these classes, in the order given; ``None`` where no class has one."""
        if self.descriptions is None:
            return None
        known = dict(zip(self.label_names, self.descriptions, strict=True))
        return tuple(known.get(name, ()) for name in label_names)

    def with_classes(self, label_names: Sequence[str]) -> "LabeledTexts":
        """Only the texts of these classes, numbered in the order given."""
        number = {name: label for label, name in enumerate(label_names)}
        rows = [i for i, label in enumerate(self.labels) if self.label_names[label] in number]
        if not rows and not self.by_name:
            raise DataError(f"No text has any of the labels {list(label_names)}.")
        kept = self.select(rows)
        labels = tuple(number[self.label_names[label]] for label in kept.labels)
        described = self.descriptions_of(label_names)
        return replace(kept, labels=labels, label_names=tuple(label_names), descriptions=described)

    def names_alone(self) -> "LabeledTexts":
        """The classes without their texts: each is known by its name and descriptions."""
        return LabeledTexts((), (), self.label_names, descriptions=self.descriptions, by_name=True)

    def digest(self) -> str:
        """A digest of texts and label names in their order: equal data, equal digest."""
        rows = zip(self.texts, self.names(), strict=True)
        return sha256("\x1e".join(f"{text}\x1f{name}" for text, name in rows).encode()).hexdigest()[:16]

    def without_empty_classes(self) -> "LabeledTexts":
        """The same texts, with only the classes that have at least one."""
        return self.with_classes([name for name, count in self.counts().items() if count])

    @classmethod
    def from_names(
        cls,
        texts: Iterable[str],
        names: Iterable[str],
        *,
        langs: Sequence[str] | None = None,
        domains: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
        users: Sequence[str] | None = None,
        times: Sequence[str] | None = None,
        lines: Sequence[str] | None = None,
        several: bool = False,
    ) -> "LabeledTexts":
        """Build from texts and their label names; classes are numbered in the sorted order of their names."""
        each = list(names)
        label_names = tuple(sorted(set(each)))
        number = {name: label for label, name in enumerate(label_names)}
        given = {"langs": langs, "domains": domains, "ids": ids, "users": users, "times": times, "lines": lines}
        columns = {name: tuple(column) for name, column in given.items() if column is not None}
        labels = tuple(number[name] for name in each)
        return cls(tuple(texts), labels, label_names, *(columns.get(name) for name in COLUMNS), several=several)

    @classmethod
    def concatenate(cls, parts: Sequence["LabeledTexts"]) -> "LabeledTexts":
        """All texts of ``parts``, classes matched by name; a column survives where every part has it."""
        columns: dict[str, list[str]] = {}
        for name in COLUMNS:
            found = [part.column(name) for part in parts]
            if all(column is not None for column in found):
                columns[name] = [value for column in found if column is not None for value in column]
        return cls.from_names(
            [text for part in parts for text in part.texts],
            [name for part in parts for name in part.names()],
            langs=columns.get("langs"),
            domains=columns.get("domains"),
            ids=columns.get("ids"),
            users=columns.get("users"),
            times=columns.get("times"),
            lines=columns.get("lines"),
            several=any(part.several for part in parts),
        )


@dataclass(frozen=True)
class Episode:
    """One few-shot task: learn from ``support``, be scored on ``query``.

    ``out_of_scope`` holds query texts that belong to none of the classes of the support set.

    Raises:
        DataError: if support and query do not number the same classes alike, or a class has no support text.
    """

    support: LabeledTexts
    query: LabeledTexts
    out_of_scope: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.support.label_names != self.query.label_names:
            raise DataError("Support and query must share the same label names, in the same order.")
        missing = set(range(self.support.n_way)) - set(self.support.labels)
        if missing and not self.support.by_name:
            names = [self.support.label_names[label] for label in sorted(missing)]
            raise DataError(f"No support text for the classes {names}.")

    @property
    def n_way(self) -> int:
        """The number of classes."""
        return self.support.n_way

    def texts(self) -> tuple[str, ...]:
        """Every text of the episode: support, query, out of scope."""
        return self.support.texts + self.query.texts + self.out_of_scope


def class_words(
    label_names: Sequence[str], descriptions: Sequence[Sequence[str]] | None = None
) -> tuple[tuple[str, ...], ...] | None:
    """What says in words what each class is: its name in plain words, if that says something, and its descriptions.

    ``None`` if there is a class of which nothing says it. Without descriptions one name that says nothing is enough, as
    in ``readable_names``.
    """
    if not any(descriptions or ()):
        names = readable_names(label_names)
        return None if names is None else tuple((name,) for name in names)
    words = words_of_each(label_names, descriptions)
    return words if all(words) else None


def wordless(label_names: Sequence[str], descriptions: Sequence[Sequence[str]] | None = None) -> tuple[str, ...]:
    """The classes of which nothing says in words what they are: no name that says something, and no description."""
    words = words_of_each(label_names, descriptions)
    return tuple(name for name, each in zip(label_names, words, strict=True) if not each)


class Named(Protocol):
    """What has names of classes and, where such were given, descriptions of them."""

    @property
    def label_names(self) -> tuple[str, ...]: ...

    @property
    def descriptions(self) -> tuple[tuple[str, ...], ...] | None: ...


def words_instead(data: Named, classes: Sequence[int]) -> list[tuple[str, ...]]:
    """The words of ``class_words`` for classes without an example, whose place they take.

    Raises:
        DataError: if nothing says in words what one of them is.
    """
    words = words_of_each(data.label_names, data.descriptions)
    silent = [data.label_names[label] for label in classes if not words[label]]
    if silent:
        raise DataError(
            f"The class {silent[0]!r} has no example, and its name says nothing about it (it is a number, a letter, or "
            "reads like another one). Describe it in words (descriptions, or --descriptions FILE), give it a name that "
            "says what it is, or give examples of it."
        )
    return [words[label] for label in classes]


def words_of_each(
    label_names: Sequence[str], descriptions: Sequence[Sequence[str]] | None = None
) -> tuple[tuple[str, ...], ...]:
    """The words of ``class_words`` class by class; none for a class of which nothing says what it is."""
    plain = [" ".join(_words(name)) for name in label_names]
    said = [() if _is_opaque(name) or plain.count(name) > 1 else (name,) for name in plain]
    return tuple((*name, *texts) for name, texts in zip(said, descriptions or ((),) * len(said), strict=True))


def readable_names(label_names: Sequence[str]) -> tuple[str, ...] | None:
    """The names in plain words (``IoT/hueLight_on`` becomes ``io t hue light on``), or ``None`` where they say nothing.

    Names say nothing if any of them is a number, a letter, or a number behind a word such as ``class``, or if two are
    the same once they are in plain words.
    """
    plain = tuple(" ".join(_words(name)) for name in label_names)
    opaque = any(_is_opaque(name) for name in plain)
    return None if opaque or len(set(plain)) < len(plain) else plain


def _take(column: tuple[str, ...] | None, rows: Sequence[int]) -> tuple[str, ...] | None:
    return None if column is None else tuple(column[i] for i in rows)


def _words(name: str) -> list[str]:
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold()
    return "".join(letter if _is_of_a_word(letter) else " " for letter in parted).split()


def _is_of_a_word(letter: str) -> bool:
    """Whether it is a letter, a digit, a mark on one (the vowels of Hindi and Tamil), or what joins two."""
    return letter.isalnum() or unicodedata.category(letter)[0] == "M" or letter in "\u200c\u200d"


def _is_opaque(name: str) -> bool:
    letters = sum(letter.isalpha() for letter in name)
    return letters < _FEWEST_LETTERS or _OPAQUE.fullmatch(name.replace(" ", "")) is not None
