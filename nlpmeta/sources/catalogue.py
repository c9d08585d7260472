"""The public data sets that are known by name: JSON files hold the facts, this module their types."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from nlpmeta.data import Column, LabeledTexts
from nlpmeta.errors import DataError, UnknownNameError
from nlpmeta.sources import SourceFacts
from nlpmeta.storage.files import inside, read_text

DATA_DIR = "NLPMETA_DATA_DIR"
PARTS = ("train", "dev", "test")
_TENTHS = ("dev", "test", *["train"] * 8)
_SALT = "nlpmeta split 0"  # another one would be another split
_RECORDS = ("catalogue.json", "wide.json")  # the second is written by tools/wide_records.py


@dataclass(frozen=True, kw_only=True)
class HubPlace:
    """Where the Hub has a data set and how it is laid out there.

    ``text`` and ``label`` are column names, the first that exists counts. ``splits`` maps our names to the Hub's.
    ``out_of_scope`` is the label of queries outside all classes: they go to the splits named ``oos_…`` and to no other.
    ``file`` is the path of a JSON Lines file in the repository, for data sets that have a script and no Parquet.
    """

    id: str
    text: tuple[str, ...]
    label: tuple[str, ...]
    splits: Mapping[str, str]
    revision: str | None = None
    ids: str | None = None
    integer_labels: tuple[str, ...] = ()
    out_of_scope: str | None = None
    file: str | None = None


@dataclass(frozen=True, kw_only=True)
class Join:
    """Texts kept apart from their labels: both tables have the column ``on``, the texts are in ``file``."""

    file: str
    on: str


@dataclass(frozen=True, kw_only=True)
class MirrorPlace:
    """The files of each split below a mirror folder, with ``{lang}`` for the language.

    ``views`` are splits that repeat texts of the others by design: few-shot draws, pools of another protocol.
    ``label`` is the column of the labels, with ``several`` of lists of them.
    ``divide`` says that the only split, ``all``, is dealt out into ``train``, ``dev`` and ``test`` (see ``dealing``).
    """

    files: Mapping[str, tuple[str, ...]]
    columns: Mapping[Column, str] = field(default_factory=dict)
    join: Join | None = None
    views: tuple[str, ...] = ()
    folds: str | None = None
    divide: bool = False
    label: str = "label"
    several: bool = False

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of all splits, those that are dealt out included."""
        return (*PARTS, *self.files) if self.divide else tuple(self.files)


@dataclass(frozen=True, kw_only=True)
class CatalogueEntry:
    """One public data set. ``languages`` maps its spelling of a language to the Hub's configuration.

    ``label_names`` is empty where the names only come with the data. ``domain_before`` says that a label starts with
    its domain, up to this character; ``domains`` gives the domain of each label where that is not so. ``kind`` is what
    sort of question the labels answer (intent, topic, sentiment, …); ``collection`` names the many sets it is one of.
    """

    facts: SourceFacts
    task: str
    languages: Mapping[str, str | None]
    label_names: tuple[str, ...]
    n_labels: int
    domain_before: str | None = None
    domains: Mapping[str, str] = field(default_factory=dict)
    hub: HubPlace | None = None
    mirror: MirrorPlace | None = None
    kind: str = ""
    collection: str | None = None

    def __post_init__(self) -> None:
        if not self.languages or (self.hub is None and self.mirror is None):
            raise ValueError(f"The catalogue entry {self.facts.name!r} has no language or no place to read from.")
        if self.label_names and len(set(self.label_names)) != self.n_labels:
            raise ValueError(f"The catalogue entry {self.facts.name!r} repeats a label or miscounts them.")

    @property
    def views(self) -> tuple[str, ...]:
        """The splits that repeat texts of the others by design."""
        if self.mirror is None:
            return ()
        return (*self.mirror.views, "all") if self.mirror.divide else self.mirror.views

    def domain_of(self, label_name: str) -> str | None:
        """The domain of a label; ``None`` if the data set has no domains, the label itself if it belongs to none."""
        if self.domain_before is not None:
            return label_name.split(self.domain_before)[0]
        return self.domains.get(label_name, label_name) if self.domains else None


_OTHER_NAMES = {"oos": "clinc150", "sib-200": "sib200", "sms-uci": "sms-spam"}
"""What papers and other packages call some data sets, in lower case."""


@cache
def catalogue() -> Mapping[str, CatalogueEntry]:
    """Every entry by its name."""
    folder = Path(__file__).parent
    records = [each for name in _RECORDS for each in json.loads(read_text(folder / name))]
    return {record["name"]: _entry(record) for record in records}


def collections() -> tuple[str, ...]:
    """The names under which a recipe can ask for many data sets at once."""
    return tuple(sorted({entry.collection for entry in catalogue().values() if entry.collection is not None}))


def members(collection: str, *, kinds: Sequence[str] | None = None, leave_out: Sequence[str] = ()) -> tuple[str, ...]:
    """The data sets of a collection, in the order of the catalogue.

    Args:
        collection: one of ``collections()``.
        kinds: only sets of these kinds; ``None`` for all.
        leave_out: sets, by their names, or whole kinds.

    Raises:
        UnknownNameError: if a kind or a set is not in the collection.
        DataError: if nothing is left.
    """
    entries = {name: entry for name, entry in catalogue().items() if entry.collection == collection}
    known_kinds = {entry.kind for entry in entries.values()}
    for kind in kinds or ():
        if kind not in known_kinds:
            raise UnknownNameError(f"kind of data sets in {collection!r}", kind, known_kinds)
    out = {known_as(name) for name in leave_out}
    for name in sorted(out):
        if name not in entries and name not in known_kinds:
            raise UnknownNameError(f"data set or kind in {collection!r}", name, {*entries, *known_kinds})
    kept = [
        name
        for name, entry in entries.items()
        if (kinds is None or entry.kind in kinds) and name not in out and entry.kind not in out
    ]
    if not kept:
        raise DataError(f"No data set of {collection!r} is left; it has {', '.join(sorted(entries)) or 'none'}.")
    return tuple(kept)


def known_as(name: str) -> str:
    """The name in the catalogue that ``name`` means, other spellings and ProtAugment's names included, or ``name``."""
    folded = name.casefold().replace("_", "-")
    meant = _OTHER_NAMES.get(folded, folded)
    return meant if meant in catalogue() else name


def catalogue_entry(name: str) -> CatalogueEntry:
    """The entry called ``name``.

    Raises:
        UnknownNameError: if there is none.
    """
    if known_as(name) not in catalogue():
        raise UnknownNameError("data set in the catalogue", name, catalogue())
    return catalogue()[known_as(name)]


def mirror_folder(data_dir: Path | str | None) -> Path | None:
    """The mirror folder: ``data_dir``, else the one that NLPMETA_DATA_DIR names, else ``None``.

    Raises:
        DataError: if the folder does not exist.
    """
    named = str(data_dir) if data_dir is not None else os.environ.get(DATA_DIR)
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        origin = "" if data_dir is not None else f" (named by {DATA_DIR})"
        raise DataError(f"The mirror folder {folder}{origin} does not exist. Name one that holds the data sets.")
    return folder


def _entry(record: Mapping[str, Any]) -> CatalogueEntry:
    by_domain = record.get("label_domains", {})
    domains = {label: domain for domain, labels in by_domain.items() for label in labels}
    label_names = tuple(sorted(domains)) if domains else tuple(record["label_names"])
    texts = {key: record[key] for key in ("name", "title", "licence", "citation", "notes")}
    return CatalogueEntry(
        facts=SourceFacts(**texts),
        task=record["task"],
        languages=record["languages"],
        label_names=label_names,
        n_labels=record.get("n_labels", len(label_names)),
        domain_before=record.get("domain_before"),
        domains=domains,
        hub=HubPlace(**_tuples(record["hub"])) if "hub" in record else None,
        mirror=_mirror(record["mirror"]) if "mirror" in record else None,
        kind=record["kind"],
        collection=record.get("collection"),
    )


def _mirror(record: Mapping[str, Any]) -> MirrorPlace:
    join = Join(**record["join"]) if "join" in record else None
    files = {split: tuple(paths) for split, paths in record["files"].items()}
    return MirrorPlace(**{**_tuples(record), "files": files, "join": join})


def _tuples(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}


POOL_SPLIT = "protaugment"
"""The split that holds all texts of the classes of a fold, in every data set that has folds."""


@dataclass(frozen=True)
class LabelFold:
    """One partition of the classes: label names for training, for model selection, and for the final test.

    Raises:
        DataError: if a part is empty or a class is in two of them.
    """

    name: str
    train: tuple[str, ...]
    valid: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        every = [*self.train, *self.valid, *self.test]
        if not (self.train and self.valid and self.test) or len(set(every)) != len(every):
            raise DataError(f"Fold {self.name}: train, valid and test must each have classes and share none.")


def folds(name: str, data_dir: Path | str | None = None) -> tuple[LabelFold, ...]:
    """The published folds of banking77, clinc150, hwu64 or liu; their texts are the split ``POOL_SPLIT``.

    Raises:
        UnknownNameError: if the catalogue has no such data set.
        DataError: if it has no folds, or the mirror folder is missing or does not hold them.
    """
    place = catalogue_entry(name).mirror
    if place is None or place.folds is None:
        having = sorted(each for each, entry in catalogue().items() if entry.mirror and entry.mirror.folds)
        raise DataError(f"{name} has no published folds; these have: {', '.join(having)}.")
    folder = mirror_folder(data_dir)
    if folder is None:
        raise DataError(f"The folds of {name} are read from a mirror folder; name it with --data-dir or {DATA_DIR}.")
    path = inside(folder, place.folds)
    if not path.is_file():
        raise DataError(f"The mirror folder {folder} does not hold the folds of {name}; they would be {path}.")
    try:
        parts = json.loads(read_text(path))
        return tuple(
            LabelFold(key, *(tuple(each[part]) for part in ("train", "valid", "test"))) for key, each in parts.items()
        )
    except (json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{path} is not a table of folds with train, valid and test classes ({error!r}).") from error


def part_of(text: str, id_: str | None = None) -> str:
    """``train`` for eight tenths, ``dev`` and ``test`` for one each, by the id of a text, or by the text without one.

    Translations of one sentence have one id, so they fall into the same part.
    """
    key = " ".join(text.casefold().split()) if id_ is None else id_
    return _TENTHS[int.from_bytes(sha256(f"{_SALT}\n{key}".encode()).digest()[:8], "big") % len(_TENTHS)]


def dealt(texts: LabeledTexts, part: str) -> LabeledTexts:
    """The texts that fall into ``part``, with the classes that are among them."""
    ids = texts.ids or (None,) * len(texts)
    rows = [row for row, (text, id_) in enumerate(zip(texts.texts, ids, strict=True)) if part_of(text, id_) == part]
    return texts.select(rows).without_empty_classes()
