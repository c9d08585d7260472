"""From what a user typed after ``--data`` to a source and what is known of it; after ``--descriptions`` to a table."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nlpmeta.data import LabeledTexts
from nlpmeta.data.inputs import is_missing
from nlpmeta.data.labels import checked_descriptions, label_name
from nlpmeta.data.multilabel import MultiLabelTexts
from nlpmeta.errors import DataError, NLPMetaError, UnknownNameError, visible
from nlpmeta.sources import Source, SourceFacts, SourceRequest, sources
from nlpmeta.sources.catalogue import CatalogueEntry, catalogue, known_as, mirror_folder
from nlpmeta.sources.columns import LABEL_NAMES, TEXT_NAMES, find
from nlpmeta.sources.form import RECOGNISED, TableForm
from nlpmeta.sources.home_assistant import HomeAssistantIntents
from nlpmeta.sources.hub import HubSource
from nlpmeta.sources.published import CatalogueSource, MirrorSource
from nlpmeta.sources.tables import columns_of, refuse_foreign, refuse_nested, rows_of
from nlpmeta.storage.files import sha256


def load_source(
    name: str,
    *,
    data_dir: Path | str | None = None,
    config: str | None = None,
    revision: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    lang_column: str | None = None,
    form: TableForm = RECOGNISED,
) -> Source:
    """The source that ``name`` stands for.

    In this order: a registered source, a data set of the catalogue, a table on disk, the id of a data set on the Hub.
    A data set of the catalogue is read from the mirror folder if that holds it, else from the Hub.

    Args:
        name: as above; ``nlpmeta data list`` prints what has a name.
        data_dir: the mirror folder; without it the one that NLPMETA_DATA_DIR names, if any.
        config: the configuration of a data set of the Hub.
        revision: the branch, tag or commit of a data set of the Hub.
        text_column: the column of the texts of a table, if it is not obvious.
        label_column: the column of the labels of a table, if it is not obvious.
        lang_column: the column of a table that says each text's language.
        form: the delimiter, encoding and header of a table, where they are not to be recognised.

    Raises:
        UnknownNameError: if it is none of these.
        DataError: if it cannot be read, or lacks a column.
    """
    asked = SourceRequest(
        name=name,
        data_dir=data_dir,
        config=config,
        revision=revision,
        text_column=text_column,
        label_column=label_column,
        lang_column=lang_column,
        form=form,
    )
    for kind in sorted(sources.values(), key=lambda each: each.rank):
        found = kind.opened(asked)
        if found is not None and not form.is_plain and not kind.takes_form:
            break
        if found is not None:
            return found
    if not form.is_plain:
        raise DataError(f"{name} is not a file; --delimiter, --encoding and --no-header go with files.")
    raise UnknownNameError("data set", name, known_names())


def known_names() -> tuple[str, ...]:
    """All names that mean a data set wherever one is, in alphabetical order."""
    return tuple(sorted({name for kind in sources.values() for name in kind.names()}))


def bundled(name: str) -> type[Source] | None:
    """The registered source of that very name, which needs no file, folder or network; ``None`` if there is none."""
    return sources[name] if name in sources and name in sources[name].names() else None


OverviewValue = str | int | bool | None | list[str] | dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The facts of a data set; ``is_local`` says that its texts can be read without a download.

    ``languages``, ``splits`` and ``labels`` are empty where only the data says them; ``n_labels`` is then ``None`` or
    what is known without them.
    """

    facts: SourceFacts
    task: str
    read_from: str
    is_local: bool
    languages: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[str, ...]
    n_labels: int | None

    def as_json(self) -> dict[str, OverviewValue]:
        """One flat object."""
        return {
            "name": self.facts.name,
            "title": self.facts.title,
            "task": self.task,
            "licence": self.facts.licence,
            "citation": self.facts.citation,
            "notes": self.facts.notes,
            "read_from": self.read_from,
            "is_local": self.is_local,
            "languages": list(self.languages),
            "splits": list(self.splits),
            "labels": list(self.labels),
            "n_labels": self.n_labels,
        }


@dataclass(frozen=True)
class Count:
    """How many texts and classes one split of one language has; ``lang`` is ``None`` where the data does not say."""

    lang: str | None
    split: str
    texts: int
    classes: int


def overviews(data_dir: Path | str | None = None) -> tuple[Overview, ...]:
    """Every data set that has a name."""
    return tuple(overview(name, open_if_possible(name, data_dir=data_dir)) for name in known_names())


def open_if_possible(name: str, *, data_dir: Path | str | None = None, config: str | None = None) -> Source | None:
    """The source called ``name``; ``None`` if it has a name but needs a mirror folder or a package that is not there.

    Raises:
        UnknownNameError: if nothing has that name.
        DataError: if the mirror folder does not exist, or a file cannot be read.
    """
    mirror_folder(data_dir)
    try:
        return load_source(name, data_dir=data_dir, config=config)
    except UnknownNameError:
        raise
    except NLPMetaError:
        if known_as(name) in known_names():
            return None
        raise


def overview(name: str, source: Source | None) -> Overview:
    """What is known of ``source``, which ``open_if_possible`` gave for ``name``."""
    if known_as(name) in catalogue():
        return _of_entry(catalogue()[known_as(name)], source)
    own = bundled(name)
    if source is None and own is not None:
        return _without_data(own.facts, _purpose(own), "a package that is not installed")
    if source is None:
        raise UnknownNameError("data set", name, known_names())
    if isinstance(source, HubSource) and not Path(name).is_dir():
        return _without_data(source.facts, "your own", f"the Hub: {name}")
    labels = () if isinstance(source, HomeAssistantIntents) else _labels(source.load(several=True))
    return Overview(
        facts=source.facts,
        task=_purpose(own) if own else "your own",
        read_from="an installed package" if own else name,
        is_local=True,
        languages=source.languages(),
        splits=tuple(source.splits()),
        labels=labels,
        n_labels=len(labels) or None,
    )


def counted(source: Source, lang: str | None = None) -> list[Count]:
    """The number of texts and classes of every split of every language, or of one language."""
    langs: list[str | None] = [source.spelling(lang)] if lang is not None else [*source.languages()] or [None]
    found = []
    for each in langs:
        for split in source.splits(each):
            texts = source.load(each, split, several=True)
            found.append(Count(each, split, len(texts), len(_labels(texts))))
    return found


def _labels(texts: LabeledTexts) -> tuple[str, ...]:
    """The labels of the texts, each by itself where a text may have several."""
    return MultiLabelTexts.of(texts).label_names if texts.several else texts.label_names


def views_of(name: str) -> tuple[str, ...]:
    """The splits of a data set of the catalogue that repeat texts of its others by design."""
    return catalogue()[known_as(name)].views if known_as(name) in catalogue() else ()


def _of_entry(entry: CatalogueEntry, source: Source | None) -> Overview:
    if isinstance(source, MirrorSource):
        read_from = f"the mirror folder {source.folder}"
    elif isinstance(source, CatalogueSource) and entry.hub is not None:
        revision = f" at {entry.hub.revision[:12]}" if entry.hub.revision else ""
        read_from = f"the Hub: {entry.hub.id}{revision}"
    else:
        read_from = "a mirror folder only"
    return Overview(
        facts=entry.facts,
        task=entry.task,
        read_from=read_from,
        is_local=isinstance(source, MirrorSource),
        languages=source.languages() if source is not None else tuple(entry.languages),
        splits=tuple(source.splits()) if source is not None else (),
        labels=entry.label_names,
        n_labels=entry.n_labels,
    )


def _without_data(facts: SourceFacts, task: str, read_from: str) -> Overview:
    return Overview(
        facts=facts, task=task, read_from=read_from, is_local=False, languages=(), splits=(), labels=(), n_labels=None
    )


def _purpose(cls: type[Source]) -> str:
    """The first line of what a class says about itself."""
    return (cls.__doc__ or "").strip().partition("\n")[0].rstrip(".")


DESCRIPTION_NAMES = ("description", "descriptions", *TEXT_NAMES)


@dataclass(frozen=True)
class Descriptions:
    """Descriptions by label as they are written in a file, and the line where each label comes first."""

    path: Path
    texts: Mapping[str, tuple[str, ...]]
    lines: Mapping[str, int]

    @classmethod
    def of_file(cls, path: Path, form: TableForm = RECOGNISED) -> "Descriptions":
        """Read a table with the columns label and text (or description); a label may have several rows.

        Raises:
            DataError: if it cannot be read, lacks a column, holds nothing, or a row lacks its label or its text.
        """
        refuse_foreign(path)
        found, where = columns_of(path, form), str(path)
        label_column, text_column = (find(names, found, where=where) for names in (LABEL_NAMES, DESCRIPTION_NAMES))
        if label_column is None or text_column is None:
            there = visible(", ".join(found))
            raise DataError(f"{path} has the columns {there}; descriptions need a column label and a column text.")
        texts: dict[str, list[str]] = {}
        lines: dict[str, int] = {}
        for line, row in rows_of(path, form):
            place, text = f"{path}, line {line}", row.get(text_column)
            refuse_nested(text, place, "text", text_column)
            label = label_name(row.get(label_column), where=place)
            if not label:
                raise DataError(f"{place}: a description has no label.")
            if is_missing(text) or not str(text).strip():
                raise DataError(f"{place}: the description of {visible(repr(label))} is empty.")
            if not isinstance(text, str):
                raise DataError(f"{place}: the description of {visible(repr(label))} is {text!r}, not a text.")
            lines.setdefault(label, line)
            texts.setdefault(label, []).append(text)
        if not texts:
            raise DataError(f"{path} holds no descriptions.")
        return cls(path, {label: tuple(each) for label, each in texts.items()}, lines)

    def of(self, classes: "np.ndarray[tuple[int], np.dtype[np.generic]]") -> dict[object, tuple[str, ...]]:
        """The descriptions by the labels of ``classes``.

        Raises:
            DataError: names the line of a label that is none of them, or is there in two spellings.
        """
        return checked_descriptions(self.texts, classes, where=self._where)

    def added_to(self, data: LabeledTexts) -> LabeledTexts:
        """``data`` with the descriptions of its classes.

        Raises:
            DataError: as ``of``.
        """
        found = self.of(np.asarray(data.label_names))
        return replace(data, descriptions=tuple(found.get(name, ()) for name in data.label_names))

    @property
    def name(self) -> str:
        """The file and a digest of what it holds."""
        return f"{self.path} ({sha256(self.path)[:12]})"

    def _where(self, label: object) -> str:
        return f"{self.path}, line {self.lines[str(label)]}"
