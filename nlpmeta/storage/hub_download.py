"""A folder from the Hub: only files of kinds that cannot do harm, at one commit, of a size that was looked at first."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nlpmeta.errors import ModelFolderError, NetworkError
from nlpmeta.storage.files import disk_errors_said_plainly, inside, make_folder, read_text, write_text
from nlpmeta.storage.hub import COMMIT, REQUEST_SECONDS, checked_id, checked_info, in_time, is_offline, said_plainly

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

SUFFIXES = (".json", ".safetensors", ".md")
"""What is downloaded: never a pickle, a program or an archive."""
LARGEST = 1 << 30  # bytes of all files together: an adapted model has a few MB, and the encoder is not part of it


_LONGEST_REF = 200  # bytes; a commit has 40


def looks_like_name(name: str) -> bool:
    """Whether ``name`` has the form ``owner/model``."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None


def looks_like_repository(name: str) -> bool:
    """Whether ``name`` can only mean a model on the Hub: ``owner/model`` where there is no such folder."""
    return looks_like_name(name) and not os.path.exists(name)


@dataclass(frozen=True)
class Fetching:
    """Which commit of a model, and how it may be fetched.

    ``revision`` is a branch, tag or commit; ``token`` is for private models (by default the one that ``hf auth login``
    stored, or ``HF_TOKEN``); ``cache_dir`` is by default the Hub's cache of this user; ``force_download`` takes no file
    from there, ``local_files_only`` all of them.
    """

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: Path | str | None = None
    force_download: bool = False
    local_files_only: bool = False


def download_folder(name: str, how: Fetching) -> Path:
    """The top folder of the model repository ``owner/model``, in the Hub's cache, with all its files from one commit.

    Raises:
        NLPMetaError: if the Hub has no such model or revision, or the name cannot be one.
        ModelFolderError: if there is more than ``LARGEST`` bytes to it.
        NetworkError: if the Hub does not answer within 5 s and the model is not in the cache.
    """
    from huggingface_hub import snapshot_download

    checked_id(name)
    revision, cache_dir = how.revision, how.cache_dir
    if how.local_files_only or is_offline():
        return _cached(name, revision, cache_dir, why="only this machine may be used (HF_HUB_OFFLINE)")
    try:
        with said_plainly(name, revision, token=how.token):
            info = in_time(lambda: _info(name, revision, how.token))
            wanted = _wanted(name, info)
    except NetworkError as error:
        return _cached(name, revision, cache_dir, why=str(error).rstrip("."))
    with said_plainly(name, revision, token=how.token), disk_errors_said_plainly(Path(cache_dir or _cache())):
        # At the commit that was looked at, under the name that was requested: a push in between changes nothing.
        folder = snapshot_download(
            name,
            revision=info.sha,
            token=how.token,
            cache_dir=cache_dir,
            force_download=how.force_download,
            allow_patterns=wanted,
        )
        _remember(name, revision, str(info.sha), cache_dir)
    return Path(folder)


def _info(name: str, revision: str | None, token: str | bool | None) -> "ModelInfo":
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    return checked_info(api.model_info(name, revision=revision, timeout=REQUEST_SECONDS, files_metadata=True))


def _wanted(name: str, info: "ModelInfo") -> list[str]:
    files = [file for file in info.siblings or [] if _is_wanted(file.rfilename)]
    size = sum(file.size or 0 for file in files)
    if size > LARGEST:
        raise ModelFolderError(
            f"The model {name!r} has {size / 1e9:.1f} GB; an adapted model has a few MB, so it was not downloaded."
        )
    if not files:
        raise ModelFolderError(f"The model {name!r} on the Hub holds no file of a model of nlpmeta.")
    return [file.rfilename for file in files]


def _is_wanted(name: str) -> bool:
    return "/" not in name and "\\" not in name and not name.startswith(".") and name.endswith(SUFFIXES)


def _cached(name: str, revision: str | None, cache_dir: Path | str | None, *, why: str) -> Path:
    """The newest commit of a revision that was downloaded before."""
    repository = Path(cache_dir or _cache()) / f"models--{name.replace('/', '--')}"
    is_commit = revision is not None and COMMIT.fullmatch(revision)
    commit = revision if is_commit else _read(inside(repository / "refs", revision or "main"))
    folder = repository / "snapshots" / (commit or "none")
    if not (commit and COMMIT.fullmatch(commit) and folder.is_dir()):
        raise NetworkError(f"The model {name!r} is not on this machine: {why}.")
    return folder


def _remember(name: str, revision: str | None, commit: str, cache_dir: Path | str | None) -> None:
    """Note which commit a branch or tag was at, where the Hub's own library looks for it too."""
    refs = Path(cache_dir or _cache()) / f"models--{name.replace('/', '--')}" / "refs"
    if revision is None or not COMMIT.fullmatch(revision):
        make_folder(refs)
        write_text(inside(refs, revision or "main"), commit)


def _read(path: Path) -> str | None:
    try:
        return read_text(path, most=_LONGEST_REF).strip()
    except (OSError, ValueError):
        return None


def _cache() -> str:
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE
