"""A model on its way to the Hub: its files without traces of this machine, its card, the push; a model by its name."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from nlpmeta.encoder.weights import is_folder_name
from nlpmeta.errors import ModelFolderError, NLPMetaError, visible
from nlpmeta.sharing.card import CardFacts, DataFacts, card, draw_curve, eval_results_yaml
from nlpmeta.sharing.gather import OWN_DATA, data_facts, gather
from nlpmeta.storage.files import (
    LARGEST_JSON,
    Json,
    copy_file,
    is_regular,
    make_folder,
    read_bytes,
    read_json,
    read_text,
    sha256,
    temporary_folder,
    write_json,
    write_text,
)
from nlpmeta.storage.folders import CARD_FILE, new_folder
from nlpmeta.storage.hub_download import Fetching, download_folder, looks_like_repository
from nlpmeta.storage.hub_push import Pushed, Target, push_folder
from nlpmeta.storage.manifest import MANIFEST, optional_json, read_manifest, report_of

PLACE = "user/model"
"""What the card of a model that was only saved calls it: the name of its folder may tell what nobody should know."""
SUPPORT_FILES = ("support.json", "support.safetensors")
REPORT_FILE, PROVENANCE_FILE, RESULTS_FILE, PICTURE_FILE = (
    "report.json",
    "provenance.json",
    ".eval_results/nlpmeta.yaml",
    "curve.png",
)
OWNED = ("*.json", "*.safetensors", CARD_FILE, PICTURE_FILE, RESULTS_FILE)
"""Patterns of the files of a repository that a model of ours may have."""
_TOLD = (
    *("data", "lang", "method", "chosen", "n_way", "n_shot", "draws", "accuracy", "macro_f1", "chance", "baseline"),
    *(
        "calibration_error",
        "curve",
        "n_support",
        "n_query",
        "n_texts",
        "scored",
        "folds",
        "scored_on",
        "left_out",
        "confused",
        "task",
        "task_report",
    ),
)
"""Keys of the report that are published: none of them quotes an example or tells of this machine."""
_FILES = ("data", "test_data", "unlabelled")
"""Keys of the report that may name a file of the author."""
_QUOTES = "doubtful_labels"  # a part of the task report that quotes examples
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
    with temporary_folder("nlpmeta-push") as temporary:
        staged = _staged(folder, Path(temporary), target, sharing)
        return push_folder(staged, target, message=sharing.message or "Push a model of nlpmeta", token=token)


def plan(folder: Path, target: Target, sharing: Sharing) -> tuple[list[Planned], str]:
    """The files that ``push_model`` would send, and the card among them; nothing is sent and nobody is asked.

    Raises:
        NLPMetaError: as ``push_model``.
    """
    with temporary_folder("nlpmeta-push") as temporary:
        staged = _staged(folder, Path(temporary), target, sharing)
        files = [path for path in sorted(staged.rglob("*")) if path.is_file()]
        sizes = [Planned(path.relative_to(staged).as_posix(), path.stat().st_size) for path in files]
        return sizes, read_text(staged / CARD_FILE)


@contextmanager
def model_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Fill a folder as ``new_folder`` does; at the end of the block a card is added to the model that is then in it.

    A card that its author changed in a folder that is replaced is kept as it is.

    Raises:
        NLPMetaError: as ``new_folder``.
        WorkFailedError: as ``new_folder``.
    """
    own = edited_card(path) if overwrite else None
    with new_folder(path, overwrite=overwrite, also=() if own is None else (CARD_FILE,)) as temporary:
        yield temporary
        if own is not None:
            write_text(temporary / CARD_FILE, own)
            return
        facts = gather(temporary, include_support=True)  # an example is quoted if it lies in the same folder
        if is_folder_name(facts.encoder):
            facts = replace(facts, encoder="own-encoder")
        write_text(temporary / CARD_FILE, card(facts, PLACE))
        manifest = read_manifest(temporary)  # which does not list the card: it may be changed
        write_json(temporary / MANIFEST, {**manifest, "card": sha256(temporary / CARD_FILE)})


def edited_card(folder: Path) -> str | None:
    """The card of a model folder if its author wrote or changed it; ``None`` if there is none, or only ours.

    Raises:
        ModelFolderError: if it cannot be read.
    """
    path = folder / CARD_FILE
    if not is_regular(path) or path.is_symlink():
        return None
    try:
        manifest = read_json(folder / MANIFEST) if is_regular(folder / MANIFEST) else None
    except ModelFolderError:
        manifest = None
    digest = manifest.get("card") if isinstance(manifest, dict) else None
    ours = sha256(path) == digest if digest is not None else is_regular(folder / PROVENANCE_FILE)  # an older push
    return None if ours else read_text(path)


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


def stage(folder: Path, into: Path, facts: CardFacts, *, name: str) -> None:
    """Write into ``into`` what the repository ``name`` shall hold of the model in ``folder``.

    Raises:
        NLPMetaError: if the encoder is a folder of this machine, which nobody else could load, or the model's kind is
            not one that can be shared.
        ModelFolderError: if the model is damaged.
    """
    manifest = read_manifest(folder)
    if is_folder_name(facts.encoder):
        raise NLPMetaError(
            f"The encoder of this model is the folder {facts.encoder!r}, which others do not have. Push the encoder to "
            "the Hub and adapt with --encoder user/name, or write a whole copy with: nlpmeta export"
        )
    kept = [each for each in facts.files if each not in SUPPORT_FILES or facts.support_is_published]
    for each in kept:
        make_folder((into / each).parent)
        copy_file(folder / each, into / each)
    if REPORT_FILE in kept:
        write_json(into / REPORT_FILE, _without_traces(report_of(folder)))
    has_picture = facts.measured is not None and draw_curve(facts.measured.curve, into / PICTURE_FILE)
    write_json(into / PROVENANCE_FILE, _provenance(facts))
    if (results := eval_results_yaml(facts)) is not None:
        write_text(into / RESULTS_FILE, results)
    if (own := edited_card(folder)) is None:
        page = card(replace(facts, has_picture=has_picture), name)
    else:
        _refuse_quotes(own, folder, facts)
        page = edited_for(own, facts, name)
    write_text(into / CARD_FILE, page)
    listed = {"files": {each: sha256(into / each) for each in kept}, "card": sha256(into / CARD_FILE)}
    write_json(into / MANIFEST, {**manifest, **listed})


def edited_for(own: str, facts: CardFacts, name: str) -> str:
    """A card that its author changed, for the repository ``name``, with licence and languages where they were stated.

    Raises:
        NLPMetaError: if its metadata, the YAML between two lines ---, cannot be read.
    """
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    try:
        page = ModelCard(own.replace(PLACE, name), ignore_metadata_errors=False)
    except (ValueError, YAMLError) as error:
        raise NLPMetaError(
            f"The metadata of {CARD_FILE} cannot be read: {visible(str(error), 200)}. Correct the lines between ---."
        ) from error
    stated = {"license": facts.licence, "language": list(facts.languages), "model_name": name.rpartition("/")[2]}
    for key, value in stated.items():
        if value:
            page.data[key] = value
    return str(page)


def _refuse_quotes(own: str, folder: Path, facts: CardFacts) -> None:
    """See that a card which was made when the model was saved, and changed since, quotes no example that stays here.

    Raises:
        NLPMetaError: says which.
    """
    texts = [] if facts.support_is_published else optional_json(folder / SUPPORT_FILES[0]).get("texts")
    quoted = next((each for each in texts if f'"{each}"' in own), None) if isinstance(texts, list) else None
    if quoted is not None:
        raise NLPMetaError(
            f"{folder / CARD_FILE} quotes the example {visible(str(quoted), 60)!r}, and examples are not published. "
            "Put another text there, or publish them with --include-support."
        )


def _without_traces(report: Mapping[str, Json]) -> dict[str, Json]:
    """The report without examples, paths of this machine and names of the author's data files."""
    kept = {key: value for key, value in report.items() if key in _TOLD}
    return dict(json.loads(json.dumps(kept), object_hook=_shortened))


def _shortened(values: dict[str, Json]) -> dict[str, Json]:
    kept = {key: value for key, value in values.items() if key != _QUOTES}
    for key in _FILES:
        if isinstance(name := kept.get(key), str) and data_facts(name).name == OWN_DATA:
            kept[key] = OWN_DATA
    return {key: _without_folder(value) if isinstance(value, str) else value for key, value in kept.items()}


def _without_folder(value: str) -> str:
    is_local = "\n" not in value and (is_folder_name(value) or Path(value).is_absolute())
    return Path(value).name if is_local else value


def _provenance(facts: CardFacts) -> dict[str, Json]:
    """Licences and sources of all that the model was made from, for programs."""
    return {
        "licence": facts.licence,
        "encoder": {"id": facts.encoder, "revision": facts.encoder_revision},
        "adapted_from": None if facts.data is None else _described(facts.data),
        "meta_trained_on": [_described(each) for each in facts.trained_on],
        "held_out_languages": list(facts.held_out_languages),
    }


def _described(data: DataFacts) -> dict[str, Json]:
    return {"name": data.title, "hub_id": data.hub_id, "licence": data.licence, "citation": data.citation}
