"""From what a user typed after ``--data`` to a source."""

from pathlib import Path

from nlpmeta.errors import DataError, UnknownNameError
from nlpmeta.sources.base import Source
from nlpmeta.sources.catalogue import CatalogueEntry, catalogue, known_as, mirror_folder
from nlpmeta.sources.catalogue_hub import CatalogueSource
from nlpmeta.sources.file import FileSource, looks_like_file
from nlpmeta.sources.form import RECOGNISED, TableForm
from nlpmeta.sources.home_assistant import HomeAssistantIntents
from nlpmeta.sources.hub import HubSource
from nlpmeta.sources.mirror import MirrorSource
from nlpmeta.sources.starter import StarterIntents, StarterSpam

BUNDLED: dict[str, type[StarterIntents | StarterSpam | HomeAssistantIntents]] = {
    "starter": StarterIntents,
    "starter-spam": StarterSpam,
    "home-assistant": HomeAssistantIntents,
}


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

    In this order: a bundled corpus, a data set of the catalogue, a table on disk, the id of a data set on the Hub.
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
    name = known_as(name)
    if not form.is_plain and (name in (*BUNDLED, *catalogue()) or not looks_like_file(name)):
        raise DataError(f"{name} is no file; --delimiter, --encoding and --no-header go with files.")
    if name in BUNDLED:
        return BUNDLED[name]()
    if name in catalogue():
        return _from_catalogue(catalogue()[name], mirror_folder(data_dir))
    if looks_like_file(name):
        columns = {"text_column": text_column, "label_column": label_column, "lang_column": lang_column}
        return FileSource(name, form=form, **columns)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return HubSource(
            name,
            config=config,
            revision=revision,
            text_column=text_column,
            label_column=label_column,
            lang_column=lang_column,
        )
    raise UnknownNameError("data set", name, known_names())


def known_names() -> tuple[str, ...]:
    """The names of all bundled corpora and data sets of the catalogue, in alphabetical order."""
    return tuple(sorted({*BUNDLED, *catalogue()}))


def _from_catalogue(entry: CatalogueEntry, folder: Path | None) -> Source:
    if folder is not None and (entry.hub is None or MirrorSource.holds(entry, folder)):
        return MirrorSource(entry, folder)
    return CatalogueSource(entry)
