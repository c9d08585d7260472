"""Any script-free classification data set of the Hugging Face Hub, by its id.

It is opened from a folder, from the Hub, or from this machine's caches when that is out of reach.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nlpmeta.data import LabeledTexts
from nlpmeta.errors import DataError, NetworkError, NLPMetaError
from nlpmeta.sources import Source, SourceFacts, SourceRequest, SplitNames, sources, write_example
from nlpmeta.sources.columns import LABEL_NAMES, TEXT_NAMES, Columns, choose, labelled, others_of
from nlpmeta.storage.hub import (
    REQUEST_SECONDS,
    WRONG_FORM,
    checked_info,
    in_time,
    no_tokens_told,
    quiet_datasets,
    short,
    wrong_form,
)

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


@sources.register("hub")
class HubSource(Source):
    """One configuration of a data set on the Hub, or of a folder with a copy of its repository.

    Obvious columns are found by themselves; integer labels become names where the data set has them. Nothing is
    fetched before texts, splits or languages are asked for, and no code that comes with a data set is ever run.

    Args:
        name: ``user/name`` on the Hub, or a folder.
        config: the configuration; needed where there are several.
        text_column: the column of the texts, if it is not obvious.
        label_column: the column of the labels, if it is not obvious.
        lang_column: a column that says each text's language.
        revision: a branch, tag or commit.
    """

    rank = 4

    def __init__(
        self,
        name: str,
        *,
        config: str | None = None,
        text_column: str | None = None,
        label_column: str | None = None,
        lang_column: str | None = None,
        revision: str | None = None,
    ) -> None:
        self.name, self.config, self.revision = name, config, revision
        self._text_column, self._label_column, self._lang_column = text_column, label_column, lang_column
        card = f"https://huggingface.co/datasets/{name}"
        self.facts = SourceFacts(
            name=name,
            title=f"{name} ({config})" if config else name,
            licence=f"as its card states: {card}",
            citation=f"as its card states: {card}",
        )
        self._opened: DatasetDict | None = None

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return ()

    @classmethod
    def opened(cls, asked: SourceRequest) -> "Source | None":
        if asked.name.count("/") != 1 or asked.name.startswith((".", "/", "~")):
            return None
        return cls(
            asked.name,
            config=asked.config,
            revision=asked.revision,
            text_column=asked.text_column,
            label_column=asked.label_column,
            lang_column=asked.lang_column,
        )

    def languages(self) -> tuple[str, ...]:
        found: set[str] = set()
        for table in self._tables().values():
            column = self._columns(table).others.get("langs")
            found |= set(map(str, table.unique(column))) if column else set()
        return tuple(sorted(found))

    def splits(self, lang: str | None = None) -> SplitNames:
        return SplitNames(map(str, self._tables()))

    def read(self, lang: str | None, split: str) -> LabeledTexts:
        table = self._tables()[self.splits().spelled(split) or split]
        texts = texts_of(table, self._columns(table), where=f"{self.facts.title}, split {split!r}")
        if lang is None or texts.langs is None:
            return texts
        return texts.select([i for i, each in enumerate(texts.langs) if each == lang]).without_empty_classes()

    def _tables(self) -> "DatasetDict":
        if self._opened is None:
            self._opened = open_dataset(self.name, self.config, self.revision)
        return self._opened

    def _columns(self, table: "Dataset") -> Columns:
        found, where = table.column_names, self.facts.title
        return Columns(
            choose("text", self._text_column, TEXT_NAMES, found, where=where),
            choose("label", self._label_column, LABEL_NAMES, found, where=where),
            others_of(found, where=where, lang_column=self._lang_column),
        )

    @classmethod
    def example(cls, folder: Path) -> "Source":
        return cls(str(write_example(folder)))


def texts_of(
    table: "Dataset", columns: Columns, *, where: str, integer_labels: Sequence[str] = (), lang: str | None = None
) -> LabeledTexts:
    """The texts of one split; integer labels are named by the data set itself, else by ``integer_labels``.

    Raises:
        DataError: if a column is missing or no row is usable.
    """
    columns.check(table.column_names, where=where)
    feature = table.features[columns.label]
    names = getattr(feature, "names", None) or integer_labels
    needed = list(dict.fromkeys((columns.text, columns.label, *columns.others.values())))
    rows = (row for batch in table.select_columns(needed).iter(1000) for row in _rows(batch))
    return labelled(rows, columns, where=where, label_names=names, lang=lang)


def _rows(batch: dict[str, list[object]]) -> list[dict[str, object]]:
    return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


def open_dataset(name: str, config: str | None = None, revision: str | None = None) -> "DatasetDict":
    """Every split of one configuration of ``name``: a folder with a copy of a Hub repository, or the repository's id.

    The Hub is asked first whether it has the data set, with a limit of 4 s, because a download retries for much longer.

    Raises:
        NetworkError: if the Hub does not answer and the data set is not in the caches of this machine.
        DataError: if there is no such data set, revision or configuration, or it would need code of its own.
    """
    if Path(name).is_dir():
        return _load(name, config, None, prepare_again=True)
    try:
        _probe(name, revision)
    except NetworkError as error:
        cached = _from_caches(name, config, revision)
        if cached is None:
            raise NetworkError(f"{error} It is not in the caches of this machine either.{_advice(config)}") from error
        return cached
    return _load(name, config, revision)


def fetch_file(name: str, path: str, revision: str | None = None) -> Path:
    """One file of a data set's repository, from the folder ``name``, the Hub's cache or the Hub.

    Raises:
        NetworkError: if the file is not on this machine and the Hub does not bring it.
        DataError: if the data set has no such file.
    """
    if Path(name).is_dir():
        return Path(name) / path
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    found = try_to_load_from_cache(name, path, cache_dir=constants.HF_HUB_CACHE, revision=revision, repo_type="dataset")
    if isinstance(found, str):
        return Path(found)
    _probe(name, revision)
    with said_plainly(name, revision), quiet_datasets():
        return Path(hf_hub_download(name, path, repo_type="dataset", revision=revision))


def _probe(name: str, revision: str | None) -> None:
    """Ask the Hub whether it has the data set."""
    from datasets import config
    from huggingface_hub import HfApi, constants

    if constants.is_offline_mode() or config.HF_HUB_OFFLINE:
        raise NetworkError(f"The data set {name!r} was requested, and HF_HUB_OFFLINE forbids the network.")
    with said_plainly(name, revision):
        checked_info(in_time(lambda: HfApi().dataset_info(name, revision=revision, timeout=REQUEST_SECONDS)))


def _load(name: str, config: str | None, revision: str | None, *, prepare_again: bool = False) -> "DatasetDict":
    """Through ``datasets``, which does not notice that a file of a local folder changed unless told to begin anew."""
    from datasets import DownloadMode, VerificationMode, load_dataset
    from datasets.exceptions import ChecksumVerificationError, DatasetGenerationError, SplitsVerificationError

    mode = DownloadMode.FORCE_REDOWNLOAD if prepare_again else DownloadMode.REUSE_DATASET_IF_EXISTS
    checks = VerificationMode.NO_CHECKS if prepare_again else VerificationMode.BASIC_CHECKS
    with said_plainly(name, revision), quiet_datasets():
        try:
            return load_dataset(name, config, revision=revision, download_mode=mode, verification_mode=checks)
        except (DatasetGenerationError, ChecksumVerificationError, SplitsVerificationError) as error:
            raise DataError(f"The data set {name!r} cannot be read: {short(error.__cause__ or error)}.") from error
        except RuntimeError as error:
            if "script" not in str(error):
                raise
            raise DataError(f"The data set {name!r} is a loading script, and scripts are not executed.") from error
        except ValueError as error:
            raise DataError(_wrong_config(name, config, revision, error)) from error


def _wrong_config(name: str, config: str | None, revision: str | None, error: ValueError) -> str:
    from datasets import get_dataset_config_names

    there = get_dataset_config_names(name, revision=revision) if "onfig" in str(error) else []
    if config is None and len(there) > 1:
        return f"The data set {name!r} has several configurations, so name one with config=…: {', '.join(there)}."
    if there and config is not None and config not in there:
        return f"The data set {name!r} has no configuration {config!r}; it has {', '.join(there)}."
    return f"The data set {name!r} cannot be read: {short(error)}."


def _from_caches(name: str, config: str | None, revision: str | None) -> "DatasetDict | None":
    """What ``datasets`` prepared before, else what lies in the Hub's cache; ``None`` if neither has it."""
    from datasets import DatasetDict
    from datasets.packaged_modules.cache.cache import Cache
    from huggingface_hub import constants, snapshot_download

    commit = revision if revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision) else None
    if revision is None or commit is not None:
        version, digest = ("0.0.0", commit) if commit else ("auto", "auto")
        try:
            with quiet_datasets():
                builder = Cache(
                    dataset_name=name.rpartition("/")[2],
                    repo_id=name,
                    config_name=config or (commit and "default"),
                    version=version,
                    hash=digest,
                )
                prepared = builder.as_dataset()
            if isinstance(prepared, DatasetDict):
                return prepared
        except (ValueError, OSError):  # not prepared before
            pass
    try:
        folder = snapshot_download(
            name, repo_type="dataset", revision=revision, cache_dir=constants.HF_HUB_CACHE, local_files_only=True
        )
    except (ValueError, OSError):  # not in the Hub's cache
        return None
    return _load(folder, config, None)


def _advice(config: str | None) -> str:
    wanted = f" (configuration {config!r})" if config else ""
    return f" Load it once{wanted} while online, or give a folder with a copy (for a set of the catalogue: --data-dir)."


@contextmanager
def said_plainly(name: str, revision: str | None) -> Iterator[None]:
    """Turn every way in which the Hub or the way to it can fail into one sentence."""
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError
    from httpx2 import HTTPError
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    try:
        with no_tokens_told():
            yield
    except NLPMetaError:
        raise
    except errors.GatedRepoError as error:
        raise NetworkError(
            f"The data set {name!r} is gated: accept its terms at {hub}/datasets/{name} and log in with: hf auth login"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DataError(
            f"The data set {name!r} has no revision {revision!r}. See {hub}/datasets/{name}/commits"
        ) from error
    except (errors.RepositoryNotFoundError, DatasetNotFoundError, errors.HFValidationError) as error:
        raise DataError(
            f"There is no data set {name!r} at {hub}, or it is private. Check the name, or log in with: hf auth login"
        ) from error
    except (errors.EntryNotFoundError, DataFilesNotFoundError) as error:
        raise DataError(f"The data set {name!r} has no such file or no tables: {short(error)}.") from error
    except (HTTPError, errors.HfHubHTTPError, OSError) as error:
        raise NetworkError(f"The data set {name!r} could not be fetched from {hub}: {short(error)}.") from error
    except WRONG_FORM as error:
        raise NetworkError(f"The data set {name!r} could not be fetched from {hub}: {wrong_form(error)}") from error
