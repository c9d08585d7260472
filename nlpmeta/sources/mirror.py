"""A data set of the catalogue read from a mirror folder: plain JSON Lines files instead of the Hub."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from nlpmeta.data import LabeledTexts
from nlpmeta.errors import DataError
from nlpmeta.files import inside, write_text
from nlpmeta.sources.base import Source, SourceFacts, sources
from nlpmeta.sources.catalogue import CatalogueEntry, MirrorPlace
from nlpmeta.sources.dealing import PARTS, dealt
from nlpmeta.sources.rows import Columns, labelled
from nlpmeta.sources.splits import SplitNames
from nlpmeta.sources.tables import Row, rows_of

_LANG: Final = "{lang}"
_ALL: Final = "all"  # the one split of a data set that is dealt out


@sources.register("mirror")
class MirrorSource(Source):
    """Reads the files that a catalogue entry names, below ``folder``.

    Raises:
        DataError: if the entry has no mirror layout, or the folder holds none of its files.
    """

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

    @staticmethod
    def holds(entry: CatalogueEntry, folder: Path) -> bool:
        """Whether ``folder`` has at least one split of the data set."""
        return entry.mirror is not None and bool(_languages(entry, entry.mirror, folder))

    def languages(self) -> tuple[str, ...]:
        return self._langs

    def splits(self, lang: str | None = None) -> SplitNames:
        langs = self._langs if lang is None else (lang,)
        return SplitNames(split for split in self._place.splits if any(self._files(split, each) for each in langs))

    def read(self, lang: str | None, split: str) -> LabeledTexts:
        named = self.splits(lang).spelled(split) or split
        langs = [each for each in (self._langs if lang is None else (lang,)) if self._files(named, each)]
        return LabeledTexts.concatenate([self._read(each, named) for each in langs])

    def _read(self, lang: str, split: str) -> LabeledTexts:
        files = self._files(split, lang)
        where = f"{self.facts.title} ({files[0] if len(files) == 1 else files[0].parent})"
        rows = (row for file in files for row in self._rows(file))
        columns = Columns("text", "label", self._place.columns)
        texts = labelled(rows, columns, where=where, lang=lang)
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
