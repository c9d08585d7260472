"""What every data source is."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import final

from nlpmeta import languages
from nlpmeta.data import LabeledTexts
from nlpmeta.errors import DataError
from nlpmeta.registry import Registry


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """What a person should know about a data set before using it."""

    name: str
    title: str
    licence: str
    citation: str
    notes: str = ""


class Source(ABC):
    """A labelled data set, read one language and one split at a time. It never shuffles and never samples."""

    facts: SourceFacts

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
