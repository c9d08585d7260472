"""The manifest of a model folder: what it holds, in which version, and the checksum of every file."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

from nlpmeta.errors import ModelFolderError, NLPMetaError, NoModelFolderError, visible
from nlpmeta.storage.files import (
    LARGEST_JSON,
    Json,
    inside,
    is_regular,
    read_bytes,
    read_json,
    sha256,
    write_bytes,
    write_json,
)
from nlpmeta.storage.folders import MANIFEST as MANIFEST
from nlpmeta.storage.tensors import LARGEST_FILE

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
"""The folder of the checkpoints that come with the package; each has its card beside it."""
SHIPPED = CHECKPOINTS / "multilingual"
FORMAT_VERSION = 1
EXPORT = "export"
"""The kind of a folder that was written for another library; it is replaced by us and read by that library."""
PARTS = ".checkpoint"
"""Where the parts of a new checkpoint wait until they are all written."""
_NEEDED = {
    "checkpoint": ("learner.safetensors",),
    "adapted": ("learner.safetensors", "task.safetensors", "labels.json"),
    "online": ("stream.json", "stream.safetensors", "classifier/nlpmeta.json"),
}
"""Files that a folder of each kind has."""
_READ_IF_THERE = (
    *("adapter_config.json", "adapter_model.safetensors", "support.json", "support.safetensors"),
    *("report.json", "calibration.json", "online.json", "online-tasks.json", "online-versions.safetensors"),
)
_VOUCHED = {*_READ_IF_THERE, *(name for names in _NEEDED.values() for name in names)}
"""Files that are read where they are there: one that is has to be listed."""
_LARGEST = {".json": LARGEST_JSON, ".safetensors": LARGEST_FILE}  # bytes
_LARGEST_OTHER = 64 << 20  # bytes; cards and pictures
_VERSION = re.compile(r"\d{1,6}(\.\d{1,6}){0,3}[a-z0-9.+]{0,20}")
BEFORE_TEACHING = "before_teaching"
"""Where the report of a model that was taught more keeps what was measured before."""
_MEMORY = ("n_bytes", "n_way", "max_way", "bytes_per_class", "n_rows", "rows_in_use", "bytes_per_row")


def named_checkpoint(asked: str) -> Path:
    """The folder of a checkpoint, which may not be there: one of the package by its name, or any by its path."""
    return SHIPPED if asked == "default" else Path(asked) if Path(asked).is_dir() else CHECKPOINTS / asked


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
    if not path.exists():
        lost = any(folder.glob("*.safetensors"))  # it was one
        kind = ModelFolderError if lost else NoModelFolderError
        raise kind(f"{folder} is not a model folder: it has no {MANIFEST}.")
    manifest = read_json(_checked(folder, MANIFEST))
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ModelFolderError(f"{path} is damaged (it lists no files). Save the model again.")
    _check_version(folder, manifest)
    if manifest.get("kind") == EXPORT:
        raise ModelFolderError(
            f"{folder} is an export for {visible(str(manifest.get('form')), 40)}, which is what loads it. "
            "Here, name the model that it was made from."
        )
    _check_files(folder, str(manifest.get("kind")), manifest["files"])
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


def _check_files(folder: Path, kind: str, files: Mapping[str, object]) -> None:
    """What will be read is listed, and what is listed is there, a regular file inside the folder, and as it was saved.

    Raises:
        ModelFolderError: names the first file that is not.
    """
    for name in _NEEDED.get(kind, ()):
        if name not in files:
            raise ModelFolderError(f"{folder / MANIFEST} does not list {name}. Save the model again.")
    for name in sorted(_VOUCHED - set(files)):
        if (folder / name).is_symlink() or (folder / name).exists():
            raise ModelFolderError(f"{folder} holds {name}, which {MANIFEST} does not list. Save the model again.")
    for name, digest in files.items():
        try:
            found = sha256(_checked(folder, name))
        except OSError as error:
            raise ModelFolderError(f"{folder / visible(name)} cannot be read: {error.strerror}.") from error
        if found != digest:
            raise ModelFolderError(
                f"{folder / visible(name)} is damaged: its checksum has changed. Save the model again."
            )


def _checked(folder: Path, name: str) -> Path:
    """A file of the folder that may be opened: a regular file, reached through no link, of a size that it can have.

    In the Hub's cache, whose files are links to the contents beside it, it is the content.

    Raises:
        ModelFolderError: if it is not.
    """
    target = inside(folder, name)
    if not is_regular(target):
        what = "not a regular file" if target.exists() else "missing"
        raise ModelFolderError(f"{folder} is incomplete: {visible(name)} is {what}. Save the model again.")
    if target.is_relative_to(root := folder.resolve()) and target != root / name:
        raise ModelFolderError(f"{folder / visible(name)} is a link, and links are not followed. Save the model again.")
    if (size := target.stat().st_size) > (most := _LARGEST.get(target.suffix, _LARGEST_OTHER)):
        raise ModelFolderError(f"{folder / visible(name)} has {size} bytes, and {most} is the limit.")
    return target


def whole_folder(folder: Path) -> Path:
    """Where the newest whole save of the checkpoint in ``folder`` lies; nothing is written, renamed or removed.

    That is ``folder`` itself, or the folder of its parts where a save was cut off before they were all copied.
    """
    parts = folder / PARTS
    if parts.is_symlink() or not parts.is_dir():
        return folder
    try:
        is_checkpoint = read_manifest(parts).get("kind") == "checkpoint"
        above = read_json(_checked(folder, MANIFEST)) if (folder / MANIFEST).exists() else {"kind": "checkpoint"}
    except NLPMetaError:  # the parts are not all there: the older save is the one that counts
        return folder
    return parts if is_checkpoint and isinstance(above, dict) and above.get("kind") == "checkpoint" else folder


def finish_save(folder: Path) -> None:
    """Copy the parts of a new checkpoint to their places, also where an earlier save was cut off at that.

    Only what the parts' own manifest lists is copied, the manifest last. Until the parts are removed they are what
    readers take; before their folder had its name it was the older checkpoint. So a kill at any time leaves one of the
    two whole.

    Raises:
        WorkFailedError: if it cannot be written.
    """
    parts = folder / PARTS
    if whole_folder(folder) != parts:
        return
    names = [*cast("Mapping[str, Json]", read_manifest(parts)["files"]), MANIFEST]
    for name in names:
        write_bytes(inside(folder, name), read_bytes(_checked(parts, name), most=LARGEST_FILE))
    for name in reversed(names):  # without their manifest the parts count no longer
        (parts / name).unlink(missing_ok=True)
    with suppress(OSError):
        parts.rmdir()


def describe(folder: Path) -> dict[str, Json]:
    """What a person wants to know about a model folder, read without loading the encoder.

    Raises:
        NLPMetaError: if there is no such folder.
        ModelFolderError: if it is damaged, incomplete or of a newer format.
    """
    folder = whole_folder(folder)
    manifest = read_manifest(folder)
    labels, report = optional_json(folder / "labels.json"), report_of(folder)
    try:
        learner, encoder = mapping(manifest["learner"]), mapping(manifest["encoder"])
        facts: dict[str, Json] = {
            "folder": str(folder),
            "kind": manifest["kind"],
            "method": learner["name"],
            "encoder": encoder["id"],
            "labels": labels.get("labels", []),
            "descriptions": _descriptions(labels),
            "labels_without_example": _without_example(labels),
            "saved_by": f"nlpmeta {manifest['nlpmeta']}",
            "bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        }
        if "class_prior" in manifest:
            facts["class_prior"] = {label: float(str(n)) for label, n in mapping(manifest["class_prior"]).items()}
        if "memory" in manifest:
            memory = mapping(manifest["memory"])
            facts["memory"] = {name: int(cast("int", memory[name])) for name in _MEMORY}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFolderError(f"{folder / MANIFEST} is damaged ({error}). Save the model again.") from error
    if "taught" in report:
        facts["taught"] = _taught(cast("list[Json]", report["taught"]))
    measured = ["data", "lang", "n_way", "n_shot", "scored", "accuracy", "macro_f1", "chance", "scored_on"]
    if labels.get("several") is True:
        facts["labels_a_text"] = "none, one or several"
        several = ("micro_f1", "mean_average_precision", "exact_match")
        measured = [*(name for name in measured if name != "accuracy"), *several]
    return facts | {name: report[name] for name in measured if name in report}


def report_of(folder: Path) -> Mapping[str, Json]:
    """What ``report.json`` says of a model as it is: figures from before it was taught more are left out.

    Raises:
        ModelFolderError: if it is damaged.
    """
    report = optional_json(folder / "report.json")
    taught = report.get("taught")
    if not isinstance(taught, list) or not any(_changes(each) for each in taught):
        return {name: value for name, value in report.items() if name != "taught"}
    if BEFORE_TEACHING in report:
        return {name: value for name, value in report.items() if name != BEFORE_TEACHING}
    return {name: report[name] for name in ("data", "lang", "taught") if name in report}  # of an older release


def _changes(taught: Json) -> bool:
    return isinstance(taught, Mapping) and bool(taught.get("new") or taught.get("described"))


def _taught(history: list[Json]) -> dict[str, Json]:
    """How many examples came in, and the accuracy by cross-validation since the last ones."""
    steps = [each for each in history if isinstance(each, Mapping)]
    new = [each["new"] for each in steps if isinstance(each.get("new"), Mapping)]
    counts = [count for each in new for count in cast("Mapping[str, Json]", each).values() if type(count) is int]
    last = steps[-1].get("cross_validation") if steps else None
    return {"examples": sum(counts), "cross_validation": last.get("after") if isinstance(last, Mapping) else None}


def _descriptions(labels: Mapping[str, Json]) -> Json:
    """The texts that describe each class, by its label; ``None`` if there are none."""
    names, given = labels.get("labels"), labels.get("descriptions")
    if not isinstance(names, list) or not isinstance(given, list):
        return None
    return {str(name): texts for name, texts in zip(names, given, strict=True) if texts}


def _without_example(labels: Mapping[str, Json]) -> Json:
    """The classes that are known by their names and descriptions alone; ``None`` if there are none."""
    names, given = labels.get("labels"), labels.get("without_example")
    if not isinstance(names, list) or not isinstance(given, list):
        return None
    return [name for name, is_so in zip(names, given, strict=True) if is_so] or None


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
