"""Reads and writes the learner part of a model folder: safetensors and JSON, each file with its checksum."""

import json
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from nlpmeta.encoder.lora import CONFIG_FILE, Storage, has_adapter, load_adapter, save_adapter
from nlpmeta.errors import DataWarning, ModelFolderError, NLPMetaError
from nlpmeta.files import inside, new_folder, sha256, write_bytes, write_json
from nlpmeta.learners.base import Learner, learners

if TYPE_CHECKING:
    from torch import Tensor

    from nlpmeta.encoder.text_encoder import TextEncoder

FORMAT_VERSION = 1
MANIFEST = "nlpmeta.json"
LEARNER_FILE = "learner.safetensors"

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"


def write_learner(folder: Path, learner: Learner, *, storage: Storage = "exact") -> dict[str, Json]:
    """Write the weights of learner and adapter into ``folder``; return what the manifest says of them."""
    from safetensors.torch import save

    own = {name: tensor for name, tensor in learner.state_dict().items() if not name.startswith("encoder.")}
    write_bytes(folder / LEARNER_FILE, save({name: tensor.contiguous() for name, tensor in own.items()}))
    if has_adapter(learner.encoder):
        save_adapter(learner.encoder, folder, storage=storage)
    return {
        "learner": {"name": learners.name_of(type(learner)), "options": dict(learner.config())},
        "encoder": _encoder_facts(learner.encoder),
    }


def write_manifest(folder: Path, facts: Mapping[str, Json]) -> None:
    """Write ``nlpmeta.json`` last: the facts, the format version, and the checksum of every other file."""
    from nlpmeta import __version__

    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    checksums = {file.relative_to(folder).as_posix(): sha256(file) for file in files}
    manifest = {"format_version": FORMAT_VERSION, "nlpmeta": __version__, **facts, "files": checksums}
    write_json(folder / MANIFEST, manifest)


def read_manifest(folder: Path) -> dict[str, Json]:
    """The manifest of a model folder whose files are all there and whole.

    Raises:
        NLPMetaError: if there is no such folder.
        ModelFolderError: if the manifest or a file is missing, damaged, or of a newer format.
    """
    if not folder.is_dir():
        raise NLPMetaError(f"There is no model folder {folder}. Make one with: nlpmeta adapt --lang sw --out {folder}")
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelFolderError(f"{folder} is not a model folder: it has no {MANIFEST}.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version, files = int(manifest["format_version"]), dict(manifest["files"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelFolderError(f"{path} is damaged ({error}). Save the model again.") from error
    if version > FORMAT_VERSION:
        raise ModelFolderError(
            f"{folder} has format version {version}; this release reads up to {FORMAT_VERSION}. "
            f"Install the release that saved it: pip install 'nlpmeta>={manifest.get('nlpmeta', '0')}'"
        )
    for name, digest in files.items():
        file = inside(folder, str(name))
        if not file.is_file():
            raise ModelFolderError(f"{folder} is incomplete: {name} is missing. Save the model again.")
        if sha256(file) != digest:
            raise ModelFolderError(f"{file} is damaged: its checksum has changed. Save the model again.")
    result: dict[str, Json] = manifest
    return result


def describe(folder: Path) -> dict[str, Json]:
    """What a person wants to know about a model folder, read without loading the encoder.

    Raises:
        NLPMetaError: if there is no such folder.
        ModelFolderError: if it is damaged, incomplete or of a newer format.
    """
    manifest = read_manifest(folder)
    labels, report = _optional_json(folder / "labels.json"), _optional_json(folder / "report.json")
    try:
        learner, encoder = _mapping(manifest["learner"]), _mapping(manifest["encoder"])
        facts: dict[str, Json] = {
            "folder": str(folder),
            "kind": manifest["kind"],
            "method": learner["name"],
            "encoder": encoder["id"],
            "labels": labels.get("labels", []),
            "saved_by": f"nlpmeta {manifest['nlpmeta']}",
            "bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        }
    except (KeyError, TypeError) as error:
        raise ModelFolderError(f"{folder / MANIFEST} is damaged ({error}). Save the model again.") from error
    if "memory" in manifest:
        facts["memory"] = manifest["memory"]
    measured = ("data", "lang", "n_way", "n_shot", "draws", "accuracy", "macro_f1", "chance", "scored_on")
    return facts | {name: report[name] for name in measured if name in report}


def _optional_json(path: Path) -> "Mapping[str, Json]":
    try:
        return _mapping(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except (ValueError, TypeError) as error:
        raise ModelFolderError(f"{path} is damaged ({error}). Save the model again.") from error


def read_learner(folder: Path, manifest: Mapping[str, Json]) -> Learner:
    """The learner that a manifest describes, with its encoder, in evaluation mode.

    Raises:
        ModelFolderError: if the description or the weights do not fit this release.
        NetworkError: if the encoder is not on disk and cannot be fetched.
    """
    try:
        facts, options = _mapping(manifest["encoder"]), _mapping(_mapping(manifest["learner"])["options"])
        kind = learners[str(_mapping(manifest["learner"])["name"])]
        is_adapted = (folder / CONFIG_FILE).is_file()
        encoder = (own_encoder if is_adapted else shared_encoder)(
            str(facts["id"]),
            revision=None if facts["revision"] is None else str(facts["revision"]),
            prefix=str(facts["prefix"]),
            max_length=int(str(facts["max_length"])),
            normalise=bool(facts["normalise"]),
        )
        if is_adapted:
            load_adapter(encoder, folder)
        learner = kind(encoder, **options)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, NLPMetaError):
            raise
        raise ModelFolderError(f"{folder / MANIFEST} does not describe a learner of this release ({error}).") from error
    _warn_of_other_weights(encoder, str(facts["digest"]))
    own = read_tensors(folder / LEARNER_FILE)
    missing = {name for name in learner.state_dict() if not name.startswith("encoder.")} ^ set(own)
    if missing:
        raise ModelFolderError(f"{folder / LEARNER_FILE} does not fit the learner: {', '.join(sorted(missing))}.")
    try:
        learner.load_state_dict(own, strict=False)
    except RuntimeError as error:
        raise ModelFolderError(f"{folder / LEARNER_FILE} does not fit the learner: {error}") from error
    return learner.eval()


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """The named tensors of a safetensors file.

    Raises:
        ModelFolderError: if the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelFolderError(f"{path} is damaged: {error}. Save the model again.") from error
    return tensors


def save_checkpoint(learner: Learner, folder: Path, facts: Mapping[str, Json], *, storage: Storage = "exact") -> None:
    """Write a meta-trained learner into ``folder``; other files there stay, an older checkpoint is replaced.

    Args:
        learner: with the adapters of its encoder.
        folder: made if absent. ``nlpmeta.json`` is replaced last, so a reader never takes a mixture for whole.
        facts: what is known of the training: recipe, data sets, languages left out, steps.
        storage: ``"float16"`` halves the size of the adapter.

    Raises:
        NLPMetaError: if the encoder was built in memory, so that it could not be found again.
    """
    with new_folder(folder / ".checkpoint", overwrite=True) as temporary:
        described = write_learner(temporary, learner, storage=storage)
        write_manifest(temporary, {"kind": "checkpoint", **described, "training": dict(facts)})
    for file in sorted((folder / ".checkpoint").iterdir(), key=lambda file: file.name == MANIFEST):
        file.replace(folder / file.name)
    (folder / ".checkpoint").rmdir()


def load_checkpoint(folder: Path | str) -> Learner:
    """The meta-trained learner in ``folder``, in evaluation mode, on an encoder of its own.

    Raises:
        NLPMetaError: if there is no such folder.
        ModelFolderError: if it is damaged, incomplete or of a newer format.
        NetworkError: if the encoder is not on disk and cannot be fetched.
    """
    folder = Path(folder)
    return read_learner(folder, read_manifest(folder))


@lru_cache(maxsize=2)
def shared_encoder(
    name: str,
    *,
    revision: str | None = None,
    prefix: str | None = None,
    max_length: int | None = None,
    normalise: bool = True,
) -> "TextEncoder":
    """``own_encoder``, loaded once a process: frozen weights can be shared."""
    return own_encoder(name, revision=revision, prefix=prefix, max_length=max_length, normalise=normalise)


def own_encoder(
    name: str,
    *,
    revision: str | None = None,
    prefix: str | None = None,
    max_length: int | None = None,
    normalise: bool = True,
) -> "TextEncoder":
    """``TextEncoder.from_pretrained``: an encoder that adapters can be put into."""
    from nlpmeta.encoder.text_encoder import TextEncoder

    return TextEncoder.from_pretrained(
        name, revision=revision, prefix=prefix, max_length=max_length, normalise=normalise
    )


def _encoder_facts(encoder: "TextEncoder") -> dict[str, Json]:
    if encoder.files is None:
        raise NLPMetaError(
            "This encoder was built in memory, so a saved model could not find it again. "
            "Save it with save_pretrained and load it with TextEncoder.from_pretrained(folder)."
        )
    return {
        "id": encoder.files.name,
        "revision": encoder.files.revision,
        "digest": encoder.files.digest,
        "prefix": encoder.prefix,
        "max_length": encoder.max_length,
        "normalise": encoder.normalise,
    }


def _warn_of_other_weights(encoder: "TextEncoder", digest: str) -> None:
    if encoder.files is not None and encoder.files.digest != digest:
        warnings.warn(
            f"The model was adapted on other weights of {encoder.files.name} than the ones found here "
            f"({encoder.files.origin}); its scores may differ a little.",
            DataWarning,
            stacklevel=3,
        )


def _mapping(value: Json) -> "Mapping[str, Json]":
    if not isinstance(value, Mapping):
        raise TypeError(f"expected an object, found {value!r}")
    return value
