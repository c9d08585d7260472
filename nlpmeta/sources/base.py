"""What every data source is."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

from nlpmeta import languages
from nlpmeta.data import LabeledTexts
from nlpmeta.errors import DataError
from nlpmeta.settings import Registry
from nlpmeta.sources.form import RECOGNISED, TableForm


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """What a person should know about a data set before using it."""

    name: str
    title: str
    licence: str
    citation: str
    notes: str = ""


@dataclass(frozen=True, kw_only=True)
class SourceRequest:
    """What was requested: a name, and how to read it. See ``loading.load_source``."""

    name: str
    data_dir: Path | str | None = None
    config: str | None = None
    revision: str | None = None
    text_column: str | None = None
    label_column: str | None = None
    lang_column: str | None = None
    form: TableForm = RECOGNISED


class Source(ABC):
    """A labelled data set, read one language and one split at a time. It never shuffles and never samples.

    A registered source can be named wherever data is asked for: as it is registered, or as its ``names`` and ``opened``
    say. Of two that claim a name the one with the lower ``rank`` gets it.
    """

    facts: SourceFacts
    rank: ClassVar[int] = 0
    takes_form: ClassVar[bool] = False
    """Whether a delimiter, an encoding or a missing header can be named for it."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names that always mean this kind of source; by default the one it is registered under."""
        return (sources.name_of(cls),)

    @classmethod
    def opened(cls, asked: SourceRequest) -> "Source | None":
        """The source that was requested; ``None`` if this kind does not claim the name."""
        return cls() if asked.name in cls.names() else None

    @abstractmethod
    def languages(self) -> tuple[str, ...]:
        """The languages as the data set spells them; empty where it does not say."""

    @abstractmethod
    def splits(self, lang: str | None = None) -> tuple[str, ...]:
        """The names of the splits, of one language where they differ."""

    @abstractmethod
    def read(self, lang: str | None, split: str) -> LabeledTexts:
        """All texts of one split; ``lang`` is spelled as in ``languages()``, or ``None`` for all languages."""

    @classmethod
    @abstractmethod
    def example(cls, folder: Path) -> "Source":
        """A small working instance, its files written below ``folder``: for the contract test and for docs."""

    @final
    def load(self, lang: str | None = None, split: str = "train") -> LabeledTexts:
        """All texts of one split and, if asked, one language, in the order of the data set.

        Args:
            lang: a code or name in any spelling (``sw``, ``swa``, ``sw-KE``, ``swh_Latn``, ``Swahili``).
            split: one of ``splits()``.

        Raises:
            UnknownLanguageError: if the data set does not have the language.
            DataError: if it does not have the split, or a file is missing or wrong.
        """
        spelled = None if lang is None else self.spelling(lang)
        known = self.splits(spelled)
        if split not in known:
            raise DataError(f"{self.facts.title} has no split {split!r}; it has {', '.join(known)}.")
        return self.read(spelled, split)

    @final
    def spelling(self, lang: str) -> str:
        """The data set's own spelling of a language; where it names no languages, the user's word is taken for it."""
        known = self.languages()
        return languages.match(lang, known, where=self.facts.title) if known else languages.parse(lang).code


sources: Registry[Source] = Registry("data source", "nlpmeta.sources")
register_source = sources.register


_SAME = (("dev", "validation", "valid", "val"), ("train", "training"), ("test", "testing"))


class SplitNames(tuple[str, ...]):
    """The splits of a data set; ``"validation" in splits`` also holds where the data set says ``dev``, and so on."""

    __slots__ = ()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.spelled(name) is not None

    def spelled(self, asked: str) -> str | None:
        """The data set's own name for the split ``asked``, ``None`` if it has none."""
        return next((each for each in _names(asked) if tuple.__contains__(self, each)), None)


def _names(asked: str) -> Iterable[str]:
    """``asked`` itself, then what others call the same split; a prefix such as ``oos_`` is kept."""
    yield asked
    prefix, underscore, last = asked.rpartition("_")
    for group in _SAME:
        if last in group:
            yield from (f"{prefix}{underscore}{other}" for other in group if other != last)
