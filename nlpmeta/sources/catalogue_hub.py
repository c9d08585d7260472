"""A data set of the catalogue read from the Hub, with our names for its languages and splits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nlpmeta.data import Column, LabeledTexts
from nlpmeta.errors import DataError
from nlpmeta.sources.base import Source, SourceFacts, sources
from nlpmeta.sources.catalogue import DATA_DIR, CatalogueEntry, HubPlace
from nlpmeta.sources.columns import find
from nlpmeta.sources.hub import texts_of, write_example
from nlpmeta.sources.hub_access import fetch_file, open_dataset
from nlpmeta.sources.mirror import with_domains
from nlpmeta.sources.rows import Columns, labelled
from nlpmeta.sources.splits import SplitNames
from nlpmeta.sources.tables import columns_of, rows_of

if TYPE_CHECKING:
    from datasets import DatasetDict

OUT_OF_SCOPE = "oos_"
"""What the names of splits of out-of-scope queries begin with."""


@sources.register("catalogue")
class CatalogueSource(Source):
    """Reads one configuration a language, as a catalogue entry lays out; nothing is fetched before texts are asked for.

    Raises:
        DataError: if the entry is not on the Hub.
    """

    def __init__(self, entry: CatalogueEntry) -> None:
        self.facts, self.entry = entry.facts, entry
        if entry.hub is None:
            raise DataError(
                f"{entry.facts.title} is not read from the Hub; name a mirror folder that holds it with --data-dir "
                f"or {DATA_DIR}."
            )
        self._place: HubPlace = entry.hub
        self._opened: dict[str | None, DatasetDict] = {}

    def languages(self) -> tuple[str, ...]:
        return tuple(self.entry.languages)

    def splits(self, lang: str | None = None) -> SplitNames:
        return SplitNames(self._place.splits)

    def read(self, lang: str | None, split: str) -> LabeledTexts:
        named = self.splits().spelled(split) or split
        parts = [self._read(each, named) for each in ([lang] if lang else self.languages())]
        return LabeledTexts.concatenate(parts)

    def _read(self, lang: str, split: str) -> LabeledTexts:
        config, where = self.entry.languages[lang], f"{self.facts.title} ({self._place.id}, {lang})"
        if self._place.file is not None:
            texts = self._from_file(config, split, where, lang)
        else:
            texts = self._from_tables(config, split, where, lang)
        return with_domains(_in_scope(texts, self._place.out_of_scope, split), self.entry)

    def _from_tables(self, config: str | None, split: str, where: str, lang: str) -> LabeledTexts:
        if config not in self._opened:
            self._opened[config] = open_dataset(self._place.id, config, self._place.revision)
        tables, theirs = self._opened[config], self._place.splits[split]
        if theirs not in tables:
            raise DataError(f"{where} has no split {theirs!r} (our {split!r}); it has {', '.join(map(str, tables))}.")
        table = tables[theirs]
        columns = _columns(self._place, table.column_names, where)
        return texts_of(table, columns, where=where, integer_labels=self._place.integer_labels, lang=lang)

    def _from_file(self, config: str | None, split: str, where: str, lang: str) -> LabeledTexts:
        name = str(self._place.file).format(config=config, split=self._place.splits[split])
        path = fetch_file(self._place.id, name, self._place.revision)
        columns = _columns(self._place, columns_of(path), where)
        rows = (row for _, row in rows_of(path))
        return labelled(rows, columns, where=where, label_names=self._place.integer_labels, lang=lang)

    @classmethod
    def example(cls, folder: Path) -> "Source":
        place = HubPlace(
            id=str(write_example(folder)),
            text=("text",),
            label=("label",),
            splits={"train": "train", "dev": "validation"},
        )
        entry = CatalogueEntry(
            facts=SourceFacts(name="tiny", title="A tiny data set", licence="Apache-2.0", citation="This package."),
            task="an example",
            languages={"en": None},
            label_names=("greet", "leave"),
            n_labels=2,
            hub=place,
        )
        return cls(entry)


def _columns(place: HubPlace, found: list[str] | tuple[str, ...], where: str) -> Columns:
    others: Mapping[Column, str] = {"ids": place.ids} if place.ids in found and place.ids else {}
    return Columns(
        _named("text", place.text, found, where),
        _named("label", place.label, found, where),
        others,
    )


def _named(kind: str, names: Sequence[str], found: Sequence[str], where: str) -> str:
    column = find(names, found, where=where)
    if column is None:
        expected = " or ".join(map(repr, names))
        raise DataError(f"{where} has no {kind} column {expected}; it has {', '.join(found)}.")
    return column


def _in_scope(texts: LabeledTexts, out_of_scope: str | None, split: str) -> LabeledTexts:
    """The rows that belong to the split: out-of-scope queries are kept apart from those of a class."""
    if out_of_scope is None:
        return texts
    wanted = split.startswith(OUT_OF_SCOPE)
    names = [name for name in texts.label_names if (name == out_of_scope) == wanted]
    return texts.with_classes(names)
