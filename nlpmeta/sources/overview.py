"""What there is to know about a data set before loading it, and how many texts it has where that costs no download."""

from dataclasses import dataclass
from pathlib import Path

from nlpmeta.errors import NLPMetaError, UnknownNameError
from nlpmeta.sources.base import Source, SourceFacts
from nlpmeta.sources.catalogue import CatalogueEntry, catalogue, known_as, mirror_folder
from nlpmeta.sources.catalogue_hub import CatalogueSource
from nlpmeta.sources.home_assistant import HomeAssistantIntents
from nlpmeta.sources.hub import HubSource
from nlpmeta.sources.loading import BUNDLED, known_names, load_source
from nlpmeta.sources.mirror import MirrorSource

Json = str | int | bool | None | list[str] | dict[str, str]


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

    def as_json(self) -> dict[str, Json]:
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
    if source is None:
        return _without_data(BUNDLED[name].facts, _purpose(BUNDLED[name]), "a package that is not installed")
    if isinstance(source, HubSource) and not Path(name).is_dir():
        return _without_data(source.facts, "your own", f"the Hub: {name}")
    labels = () if isinstance(source, HomeAssistantIntents) else source.load().label_names
    return Overview(
        facts=source.facts,
        task=_purpose(type(source)) if name in BUNDLED else "your own",
        read_from="an installed package" if name in BUNDLED else name,
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
