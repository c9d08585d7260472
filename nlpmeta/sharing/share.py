"""Push a model to the Hub, or list what would be pushed; and find a model by folder or by its name there."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nlpmeta.errors import NLPMetaError
from nlpmeta.files import LARGEST_JSON, read_bytes, temporary_folder
from nlpmeta.hub.download import Fetching, download_folder, looks_like_repository
from nlpmeta.hub.push import Pushed, Target, push_folder
from nlpmeta.sharing.gather import gather
from nlpmeta.sharing.staging import OWNED, stage

_TOKEN = re.compile(rb"\bhf_[A-Za-z]{30,}\b")


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """How a model is published. ``licence`` is spelled as the Hub spells it; ``languages`` where adapt was not told."""

    licence: str | None = None
    languages: tuple[str, ...] = ()
    include_support: bool = False
    message: str | None = None


@dataclass(frozen=True)
class Planned:
    """A file that would be pushed, with its size in bytes."""

    name: str
    bytes: int


def push_model(folder: Path, target: Target, sharing: Sharing, *, token: str | None = None) -> Pushed:
    """Push the model in ``folder``: its files and a card, in one commit.

    Raises:
        NLPMetaError: if it cannot be shared, or nobody is logged in.
        ModelFolderError: if it is damaged.
        NetworkError: if the Hub cannot be reached or refuses.
    """
    with temporary_folder("nlpmeta-push-") as temporary:
        staged = _staged(folder, Path(temporary), target, sharing)
        return push_folder(staged, target, message=sharing.message or "Push a model of nlpmeta", token=token)


def plan(folder: Path, target: Target, sharing: Sharing) -> list[Planned]:
    """The files that ``push_model`` would send; nothing is sent and nobody is asked.

    Raises:
        NLPMetaError: as ``push_model``.
    """
    with temporary_folder("nlpmeta-push-") as temporary:
        staged = _staged(folder, Path(temporary), target, sharing)
        files = [path for path in sorted(staged.rglob("*")) if path.is_file()]
        return [Planned(path.relative_to(staged).as_posix(), path.stat().st_size) for path in files]


def find_model(name: Path | str, how: Fetching | None = None) -> Path:
    """The folder ``name``, or the model ``owner/name`` of the Hub in the cache of this machine.

    Raises:
        NLPMetaError: if a revision is asked of a folder, or the Hub has no such model.
        NetworkError: if the model is neither on this machine nor to be had.
    """
    how = how or Fetching()
    if looks_like_repository(str(name)):
        return download_folder(str(name), how)
    if how.revision is not None:
        raise NLPMetaError(f"{name} is a folder and has no revisions; leave revision={how.revision!r} out.")
    return Path(name)


def owned_target(name: str, *, private: bool | None, revision: str | None, as_pull_request: bool) -> Target:
    """The target of a push of a model: it owns the files that a model of ours can have, and no others."""
    return Target(name, private=private, revision=revision, as_pull_request=as_pull_request, owns=OWNED)


def _staged(folder: Path, into: Path, target: Target, sharing: Sharing) -> Path:
    languages: Sequence[str] = sharing.languages
    facts = gather(folder, licence=sharing.licence, languages=languages, include_support=sharing.include_support)
    if sharing.include_support and not facts.support_is_published:
        raise NLPMetaError(
            f"{folder} does not hold its examples, so they cannot be published. Save the model with "
            "save_pretrained(..., include_support=True) first."
        )
    stage(folder, into, facts, name=target.name)
    for path in into.rglob("*"):
        if path.is_file() and path.suffix != ".safetensors" and _TOKEN.search(read_bytes(path, most=LARGEST_JSON)):
            raise NLPMetaError(f"{path.name} holds what looks like a token of the Hub; nothing was pushed.")
    return into
