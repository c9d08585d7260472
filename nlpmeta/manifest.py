"""The manifest of a model folder: what it holds, in which version, and the checksum of every file."""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias, cast

from nlpmeta.errors import ModelFolderError, NLPMetaError
from nlpmeta.files import disk_errors_said_plainly, inside, read_json, sha256, write_json

FORMAT_VERSION = 1
MANIFEST = "nlpmeta.json"
PARTS = ".checkpoint"
"""Where the parts of a new checkpoint wait until they are all written."""
READ_IF_THERE = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "support.json",
    "support.safetensors",
    "report.json",
    "calibration.json",
)
"""Files that a model may have; one that is there has to be listed."""
_VERSION = re.compile(r"\d{1,6}(\.\d{1,6}){0,3}[a-z0-9.+]{0,20}")
_MEMORY = ("n_bytes", "n_way", "max_way", "bytes_per_class", "n_rows", "rows_in_use", "bytes_per_row")

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"


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
    finish_save(folder)
    path = inside(folder, MANIFEST)
    if not path.is_file():
        raise ModelFolderError(f"{folder} is not a model folder: it has no {MANIFEST}.")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ModelFolderError(f"{path} is damaged (it lists no files). Save the model again.")
    _check_version(folder, manifest)
    _check_files(folder, manifest["files"])
    result: dict[str, Json] = manifest
    return result


def _check_version(folder: Path, manifest: Mapping[str, object]) -> None:
    version, saved_by = manifest.get("format_version"), manifest.get("nlpmeta")
    if type(version) is not int or version < 1 or not isinstance(saved_by, str) or not _VERSION.fullmatch(saved_by):
        raise ModelFolderError(f"{folder / MANIFEST} is damaged (it names no version). Save the model again.")
    if version > FORMAT_VERSION:
        raise ModelFolderError(
            f"{folder} has format version {version}; this release reads up to {FORMAT_VERSION}. "
            f"Install the release that saved it: pip install 'nlpmeta>={saved_by}'"
        )


def _check_files(folder: Path, files: Mapping[str, object]) -> None:
    """What is read is listed, there, inside the folder, and as it was saved."""
    for name, digest in files.items():
        file = inside(folder, name)
        if not os.path.isfile(file):  # also false for a name that no file can have
            raise ModelFolderError(f"{folder} is incomplete: {name[:80]} is missing. Save the model again.")
        if sha256(file) != digest:
            raise ModelFolderError(f"{file} is damaged: its checksum has changed. Save the model again.")
    for name in READ_IF_THERE:
        if name not in files and os.path.lexists(folder / name):
            raise ModelFolderError(f"{folder} holds {name}, which {MANIFEST} does not list. Save the model again.")


def finish_save(folder: Path) -> None:
    """Put the parts of a new checkpoint in place where a save was cut off after they were all written.

    From the moment when their folder has its name the checkpoint is the new one: whoever reads it first moves what is
    left. Before that moment it is the old one. So a kill at any time leaves one of the two.

    Raises:
        WorkFailedError: if this user may not write there.
    """
    parts = folder / PARTS
    if not (parts / MANIFEST).is_file():
        return
    with disk_errors_said_plainly(folder):
        for file in sorted(parts.iterdir(), key=lambda file: file.name == MANIFEST):
            with suppress(FileNotFoundError):  # another reader was faster
                file.replace(folder / file.name)
        with suppress(OSError):
            parts.rmdir()


def describe(folder: Path) -> dict[str, Json]:
    """What a person wants to know about a model folder, read without loading the encoder.

    Raises:
        NLPMetaError: if there is no such folder.
        ModelFolderError: if it is damaged, incomplete or of a newer format.
    """
    manifest = read_manifest(folder)
    labels, report = optional_json(folder / "labels.json"), optional_json(folder / "report.json")
    try:
        learner, encoder = mapping(manifest["learner"]), mapping(manifest["encoder"])
        facts: dict[str, Json] = {
            "folder": str(folder),
            "kind": manifest["kind"],
            "method": learner["name"],
            "encoder": encoder["id"],
            "labels": labels.get("labels", []),
            "saved_by": f"nlpmeta {manifest['nlpmeta']}",
            "bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        }
        if "memory" in manifest:
            memory = mapping(manifest["memory"])
            facts["memory"] = {name: int(cast("int", memory[name])) for name in _MEMORY}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFolderError(f"{folder / MANIFEST} is damaged ({error}). Save the model again.") from error
    measured = ("data", "lang", "n_way", "n_shot", "draws", "accuracy", "macro_f1", "chance", "scored_on")
    return facts | {name: report[name] for name in measured if name in report}


def optional_json(path: Path) -> "Mapping[str, Json]":
    """The JSON object in ``path``; empty if there is no such file.

    Raises:
        ModelFolderError: if it is damaged.
    """
    try:
        return mapping(cast("Json", read_json(path))) if path.exists() else {}
    except TypeError as error:
        raise ModelFolderError(f"{path} is damaged ({error}). Save the model again.") from error


def mapping(value: Json) -> "Mapping[str, Json]":
    """``value``, which has to be a JSON object.

    Raises:
        TypeError: if it is not.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"expected an object, found {value!r}")
    return value
