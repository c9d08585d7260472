"""A folder to the Hub in one commit: tried again where the network fails, and nothing where nothing changed."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nlpmeta.errors import NetworkError, NLPMetaError
from nlpmeta.storage.files import read_bytes, sha256
from nlpmeta.storage.hub import (
    LOG_IN,
    PROBE_SECONDS,
    REQUEST_SECONDS,
    checked_id,
    in_time,
    is_offline,
    said_plainly,
    status_of,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo, RepoFile

T = TypeVar("T")
TRIES = 4
FIRST_WAIT = 1.0  # seconds, doubled after each try
_AGAIN = {408, 409, 412, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Target:
    """Where a folder goes.

    ``private`` is for a repository that is made; ``None`` makes a private one. ``owns`` are patterns of the files that
    belong to the folder: those of them that it no longer has go from the repository in the same commit. Others stay.
    """

    name: str
    private: bool | None = None
    revision: str | None = None
    as_pull_request: bool = False
    owns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checked_id(self.name)
        if "/" not in self.name:
            raise NLPMetaError(f"{self.name!r} lacks an owner; give it as 'user/{self.name}'.")
        if self.as_pull_request and self.revision not in (None, "main"):
            raise NLPMetaError("A pull request goes to main; leave either the revision or the pull request out.")


@dataclass(frozen=True)
class Pushed:
    """What a push did. ``changed`` and ``deleted`` are file names; ``commit`` is the one that holds the folder now."""

    url: str
    commit: str
    private: bool
    created: bool
    changed: tuple[str, ...]
    deleted: tuple[str, ...]
    pull_request: str | None = None


def push_folder(
    folder: Path, target: Target, *, message: str, token: str | None = None, wait: float = FIRST_WAIT
) -> Pushed:
    """Make the repository if need be and bring it to the content of ``folder`` in one commit.

    A push that was cut off leaves the repository as it was; the same push again does what is left, be it nothing.

    Args:
        folder: its files, at any depth, are pushed.
        target: the repository.
        message: the first line of the commit.
        token: by default the one that ``hf auth login`` stored, or ``HF_TOKEN``.
        wait: seconds before the second try.

    Raises:
        NetworkError: if the Hub cannot be reached within 5 s, refuses, or fails ``TRIES`` times.
        NLPMetaError: if nobody is logged in, or a private model was requested and the repository is public.
    """
    from huggingface_hub import HfApi, get_token

    if is_offline():
        raise NetworkError(f"{target.name!r} was to be pushed, and HF_HUB_OFFLINE forbids the network.")
    if not (token or get_token()):
        raise NLPMetaError(f"Pushing needs a token of the Hub: {LOG_IN}, or set HF_TOKEN.")
    api = HfApi(token=token, library_name="nlpmeta")
    with said_plainly(target.name, target.revision, doing="sent to", token=token):
        found = in_time(lambda: _look(api, target.name), PROBE_SECONDS)
        _check_visibility(target, found)
        if found is None:
            private = target.private is not False
            _tried(lambda: api.create_repo(target.name, private=private, exist_ok=True), wait)
        if target.revision not in (None, "main"):
            _tried(lambda: api.create_branch(target.name, branch=str(target.revision), exist_ok=True), wait)
        return _tried(lambda: _commit(api, folder, target, message, created=found is None), wait)


def _look(api: "HfApi", name: str) -> "ModelInfo | None":
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return api.model_info(name, timeout=REQUEST_SECONDS)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError as error:
        if error.response.status_code == 401 and "credentials" in error.response.headers.get("X-Error-Message", ""):
            raise
        return None


def _check_visibility(target: Target, found: "ModelInfo | None") -> None:
    if found is not None and target.private and not found.private:
        raise NLPMetaError(
            f"{target.name!r} exists and is public, and a private model was requested. Push to another name, or make "
            "it private in its settings first."
        )


def _tried(work: Callable[[], T], wait: float) -> T:
    """The result of ``work``, tried again after failures that pass."""
    from httpx2 import TransportError

    for attempt in range(TRIES):
        try:
            return work()
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, TransportError):
                cause = cause.__cause__
            status = status_of(error)
            passing = status in _AGAIN if status is not None else cause is not None
            if not passing or attempt + 1 == TRIES:
                raise _as_http(error) from error
        time.sleep(wait * 2**attempt)
    raise AssertionError("unreachable")


def _as_http(error: Exception) -> Exception:
    """The error of the Hub inside the one that its library wraps around a failed upload."""
    inner: BaseException | None = error
    while inner is not None and type(inner) is RuntimeError:
        inner = inner.__cause__
    return inner if isinstance(inner, Exception) else error


def _commit(api: "HfApi", folder: Path, target: Target, message: str, *, created: bool) -> Pushed:
    """One commit on top of what is there now; refused by the Hub if somebody else was faster, and then tried again."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]  # not re-exported

    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    info = api.model_info(target.name, revision=target.revision)
    there = _tree(api, target.name, str(info.sha))
    changed = tuple(name for name, path in files.items() if not _same(path, there.get(name)))
    gone = [name for name in there if name not in files]
    deleted = tuple(filter_repo_objects(gone, allow_patterns=list(target.owns)))
    pushed = Pushed(
        url=f"{api.endpoint}/{target.name}",
        commit=str(info.sha),
        private=bool(info.private),
        created=created,
        changed=changed,
        deleted=deleted,
    )
    if not changed and not deleted:
        return pushed
    if target.as_pull_request and (request := _open_request(api, target.name, message, files)) is not None:
        return replace(pushed, commit=request[0], pull_request=request[1])
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=files[name]) for name in changed]
    done = api.create_commit(
        target.name,
        [*operations, *(CommitOperationDelete(path_in_repo=name) for name in deleted)],
        commit_message=message,
        revision=target.revision,
        create_pr=target.as_pull_request,
        parent_commit=info.sha,
    )
    return replace(pushed, commit=done.oid, pull_request=done.pr_url)


def _open_request(api: "HfApi", name: str, title: str, files: Mapping[str, Path]) -> tuple[str, str] | None:
    """Commit and address of an open pull request that already holds these files: from a try whose answer was lost."""
    for request in api.get_repo_discussions(name, discussion_type="pull_request", discussion_status="open"):
        if request.title == title:
            revision = f"refs/pr/{request.num}"
            there = _tree(api, name, revision)
            if all(_same(path, there.get(file)) for file, path in files.items()):
                return str(api.model_info(name, revision=revision).sha), request.url
    return None


def _tree(api: "HfApi", name: str, revision: str) -> "dict[str, RepoFile]":
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(name, recursive=True, revision=revision)
    return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}


def _same(path: Path, there: "RepoFile | None") -> bool:
    """Whether the Hub has this very content, by Git's hash of it or, for large files, its SHA-256."""
    from huggingface_hub.utils.sha import git_hash

    if there is None or there.size != path.stat().st_size:
        return False
    if there.lfs is not None:
        return sha256(path) == there.lfs.sha256
    return git_hash(read_bytes(path, most=there.size)) == there.blob_id
