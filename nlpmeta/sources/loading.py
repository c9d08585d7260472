"""From what a user typed after ``--data`` to a source, and what there is to know of it before it is loaded."""

from dataclasses import dataclass
from pathlib import Path

from nlpmeta.errors import DataError, NLPMetaError, UnknownNameError
from nlpmeta.sources.base import Source, SourceFacts, SourceRequest, sources
from nlpmeta.sources.bundled import HomeAssistantIntents
from nlpmeta.sources.catalogue import CatalogueEntry, catalogue, known_as, mirror_folder
from nlpmeta.sources.form import RECOGNISED, TableForm
from nlpmeta.sources.hub import HubSource
from nlpmeta.sources.published import CatalogueSource, MirrorSource


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
    labels = () if isinstance(source, HomeAssistantIntents) else source.load().label_names
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
            texts = source.load(each, split)
            found.append(Count(each, split, len(texts), texts.n_way))
    return found


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
