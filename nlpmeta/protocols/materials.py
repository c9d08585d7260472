"""From a data set to what a protocol draws from: the right splits, folds and texts out of scope."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nlpmeta.data import LabeledTexts
from nlpmeta.errors import DataError, DataWarning
from nlpmeta.protocols.base import Material, Protocol
from nlpmeta.sources.base import Source
from nlpmeta.sources.catalogue import POOL_SPLIT, LabelFold, folds
from nlpmeta.sources.form import RECOGNISED, TableForm
from nlpmeta.sources.inspection import check_apart, paired
from nlpmeta.sources.loading import load_source

_PUBLISHED_NAMES = {"oos": "clinc150"}
"""What ProtAugment calls a data set that has another name here."""


@dataclass(frozen=True, kw_only=True)
class DataChoice:
    """Which data to evaluate on: names as ``load_source`` takes them, and the split that the support comes from.

    With ``fold`` only the test classes of that published fold are drawn from.
    """

    data: str
    data_dir: Path | None = None
    test_data: str | None = None
    split: str = "train"
    text_column: str | None = None
    label_column: str | None = None
    lang_column: str | None = None
    form: TableForm = RECOGNISED
    fold: int | None = None

    @cached_property
    def source(self) -> Source:
        """The data set itself, opened once: a large file is read once, and what is wrong with it said once."""
        return self._open(self.data)

    def languages(self, asked: Sequence[str] | None) -> list[str | None]:
        """What to evaluate on in turn: the languages asked for (``all`` for all), or all texts at once (``None``).

        Raises:
            UnknownLanguageError: if the data set lacks one.
        """
        source = self.source
        if asked is None:
            return [None]
        if list(asked) == ["all"]:
            return list(source.languages())
        return list(dict.fromkeys(source.spelling(lang) for lang in asked))

    def spelling(self, lang: str | None) -> str | None:
        """The data set's own spelling of a language; where it has one only, that one."""
        source = self.source
        if lang is not None:
            return source.spelling(lang)
        return source.languages()[0] if len(source.languages()) == 1 else None

    def material(self, protocol: Protocol, lang: str | None) -> Material:
        """What ``protocol`` needs of it.

        Raises:
            NLPMetaError: if the data set, the language, a split or the folds are not there.
        """
        if protocol.draws_from == "folds":
            return Material(folds=self._folds())
        source = self.source
        if protocol.draws_from == "test split":
            pool = source.load(lang, "test" if "test" in source.splits() else self.split)
            return Material(pool=pool if self.fold is None else pool.with_classes(self._fold(self.fold).test))
        if self.fold is not None:
            raise DataError(f"{protocol.name} draws from all classes; a fold is for n-way and stream.")
        pool, test = source.load(lang, self.split), self._test(source, lang)
        if test is not None and self.test_data is not None:
            test, notes = paired(pool, test, data=self.data, test_data=self.test_data)
            for note in notes:
                warnings.warn(note, DataWarning, stacklevel=2)
        return Material(pool=pool, test=test, out_of_scope=_out_of_scope(source, protocol, lang))

    def _test(self, source: Source, lang: str | None) -> LabeledTexts | None:
        """The texts to score on; ``None`` where the data set has no test split of its own and no other is named."""
        if self.test_data is not None:
            check_apart(self.data, self.test_data)
            other = self._open(self.test_data)
            return other.load(lang, "test" if "test" in other.splits() else "train")
        if "test" in source.splits() and self.split != "test":
            return source.load(lang, "test")
        return None

    def _fold(self, number: int) -> LabelFold:
        published = folds(_PUBLISHED_NAMES.get(self.data, self.data), self.data_dir)
        if number >= len(published):
            raise DataError(f"{self.data} has folds 0 to {len(published) - 1}; fold {number} was asked for.")
        return published[number]

    def _folds(self) -> tuple[LabeledTexts, ...]:
        published = folds(_PUBLISHED_NAMES.get(self.data, self.data), self.data_dir)
        pool = self.source.load(split=POOL_SPLIT)
        return tuple(pool.with_classes(fold.test) for fold in published)

    def _open(self, name: str) -> Source:
        return load_source(
            _PUBLISHED_NAMES.get(name, name),
            data_dir=self.data_dir,
            text_column=self.text_column,
            label_column=self.label_column,
            lang_column=self.lang_column,
            form=self.form,
        )


def _out_of_scope(source: Source, protocol: Protocol, lang: str | None) -> tuple[str, ...]:
    if protocol.draws_from != "splits and out of scope":
        return ()
    if "oos_test" not in source.splits():
        raise DataError(
            f"{source.facts.title} has no texts out of scope (a split oos_test), which {protocol.name} needs; "
            "clinc150 has them."
        )
    return source.load(lang, "oos_test").texts
