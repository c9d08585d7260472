"""A data set of the catalogue, from a mirror folder of plain files or from the Hub, with our names for its splits."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nlpmeta.data import Column, LabeledTexts
from nlpmeta.errors import DataError
from nlpmeta.sources import Source, SourceFacts, SourceRequest, SplitNames, sources, write_example
from nlpmeta.sources.arrow_rows import Row
from nlpmeta.sources.catalogue import (
    DATA_DIR,
    PARTS,
    CatalogueEntry,
    HubPlace,
    MirrorPlace,
    catalogue,
    dealt,
    known_as,
    mirror_folder,
)
from nlpmeta.sources.columns import Columns, find, labelled
from nlpmeta.sources.hub import fetch_file, open_dataset, texts_of
from nlpmeta.sources.tables import columns_of, rows_of
from nlpmeta.storage.files import inside, write_text

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

    rank = 2

    def __init__(self, entry: CatalogueEntry) -> None:
        self.facts, self.entry = entry.facts, entry
        if entry.hub is None:
            raise DataError(
                f"{entry.facts.title} is not read from the Hub; name a mirror folder that holds it with --data-dir "
                f"or {DATA_DIR}."
            )
        self._place: HubPlace = entry.hub
        self._opened: dict[str | None, DatasetDict] = {}

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(catalogue())

    @classmethod
    def opened(cls, asked: SourceRequest) -> "Source | None":
        entry = catalogue().get(known_as(asked.name))
        return None if entry is None else cls(entry)

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


_LANG: Final = "{lang}"
_ALL: Final = "all"  # the one split of a data set that is dealt out


@sources.register("mirror")
class MirrorSource(Source):
    """Reads the files that a catalogue entry names, below ``folder``.

    Raises:
        DataError: if the entry has no mirror layout, or the folder holds none of its files.
    """

    rank = 1

    def __init__(self, entry: CatalogueEntry, folder: Path) -> None:
        self.facts, self.entry, self.folder = entry.facts, entry, folder
        if entry.mirror is None:
            raise DataError(f"{entry.facts.title} has no mirror layout; it is read from the Hub.")
        self._place: MirrorPlace = entry.mirror
        self._langs = _languages(entry, self._place, folder)
        if not self._langs:
            raise DataError(
                f"The mirror folder {folder} does not hold {entry.facts.title}; it would be {self._example()}."
            )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return ()

    @classmethod
    def opened(cls, asked: SourceRequest) -> "Source | None":
        entry = catalogue().get(known_as(asked.name))
        folder = None if entry is None else mirror_folder(asked.data_dir)
        if entry is None or folder is None:
            return None
        there = entry.mirror is not None and bool(_languages(entry, entry.mirror, folder))
        return cls(entry, folder) if there or entry.hub is None else None

    def languages(self) -> tuple[str, ...]:
        return self._langs

    def splits(self, lang: str | None = None) -> SplitNames:
        langs = self._langs if lang is None else (lang,)
        return SplitNames(split for split in self._place.splits if any(self._files(split, each) for each in langs))

    def read(self, lang: str | None, split: str) -> LabeledTexts:
        if self.several:
            raise DataError(
                f"{self.facts.title} has several labels per text, and one is wanted here; nlpmeta adapt, teach, score, "
                "evaluate, bench and data check take several."
            )
        return self._parts(lang, split)

    def _parts(self, lang: str | None, split: str) -> LabeledTexts:
        named = self.splits(lang).spelled(split) or split
        langs = [each for each in (self._langs if lang is None else (lang,)) if self._files(named, each)]
        return LabeledTexts.concatenate([self._read(each, named) for each in langs])

    @property
    def several(self) -> bool:
        return self._place.several

    def read_sets(self, lang: str | None, split: str) -> LabeledTexts:
        return self._parts(lang, split)

    def _read(self, lang: str, split: str) -> LabeledTexts:
        files = self._files(split, lang)
        where = f"{self.facts.title} ({files[0] if len(files) == 1 else files[0].parent})"
        rows = (row for file in files for row in self._rows(file))
        columns = Columns("text", self._place.label, self._place.columns)
        texts = labelled(rows, columns, where=where, lang=lang, several=self.several)
        return with_domains(dealt(texts, split) if split not in self._place.files else texts, self.entry)

    def _rows(self, file: Path) -> Iterator[Row]:
        join = self._place.join
        if join is None:
            yield from (row for _, row in rows_of(file))
            return
        texts = {row[join.on]: row for _, row in rows_of(inside(self.folder, join.file))}
        for line, row in rows_of(file):
            if row.get(join.on) not in texts:
                raise DataError(f"{file}, line {line}: {join.file} has no {join.on} {row.get(join.on)!r}.")
            yield {**texts[row[join.on]], **row}

    def _files(self, split: str, lang: str) -> tuple[Path, ...]:
        """The files of one split and language that exist; none if any of them is missing."""
        kept_in = _ALL if self._place.divide and split in PARTS else split
        paths = tuple(self.folder / name.replace(_LANG, lang) for name in self._place.files.get(kept_in, ()))
        return paths if all(path.is_file() for path in paths) else ()

    def _example(self) -> Path:
        return self.folder / next(iter(self._place.files.values()))[0]

    @classmethod
    def example(cls, folder: Path) -> "Source":
        rows = {
            "en": [("good morning", "greet"), ("see you", "leave")],
            "sw": [("habari", "greet"), ("kwaheri", "leave")],
        }
        for lang, pairs in rows.items():
            for split in ("train", "dev"):
                path = folder / "tiny" / lang / f"{split}.jsonl"
                lines = [json.dumps({"id": f"{split}-{i}", "text": t, "label": n}) for i, (t, n) in enumerate(pairs)]
                write_text(path, "\n".join(lines) + "\n")
        entry = CatalogueEntry(
            facts=SourceFacts(name="tiny", title="A tiny mirror", licence="Apache-2.0", citation="This package."),
            task="an example",
            languages=dict.fromkeys(rows),
            label_names=("greet", "leave"),
            n_labels=2,
            mirror=MirrorPlace(
                files={split: (f"tiny/{_LANG}/{split}.jsonl",) for split in ("train", "dev")}, columns={"ids": "id"}
            ),
        )
        return cls(entry, folder)


def with_domains(texts: LabeledTexts, entry: CatalogueEntry) -> LabeledTexts:
    """The same texts with the domain that the entry gives to each label, if it gives any."""
    domains = {name: entry.domain_of(name) for name in texts.label_names}
    named = tuple(domain for name in texts.names() if (domain := domains[name]) is not None)
    return replace(texts, domains=named) if len(named) == len(texts) else texts


def _languages(entry: CatalogueEntry, place: MirrorPlace, folder: Path) -> tuple[str, ...]:
    """The languages of which ``folder`` has a split, spelled as there."""
    found: set[str] = set()
    for paths in place.files.values():
        head, lang, tail = paths[0].partition(_LANG)
        if lang and (folder / head).is_dir():
            names = (each.name for each in (folder / head).iterdir())
            found |= {name for name in names if (folder / f"{head}{name}{tail}").is_file()}
        elif not lang and all((folder / path).is_file() for path in paths):
            found |= set(entry.languages)
    return tuple(sorted(found))
