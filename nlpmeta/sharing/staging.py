"""The files of a model as they are published: what belongs to it, without traces of this machine, and with a card."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nlpmeta.card.facts import CardFacts, DataFacts
from nlpmeta.card.metadata import eval_results_yaml
from nlpmeta.card.page import card
from nlpmeta.card.picture import draw_curve
from nlpmeta.encoder.weights import is_folder_name
from nlpmeta.errors import NLPMetaError
from nlpmeta.files import copy_file, make_folder, sha256, write_json, write_text
from nlpmeta.manifest import MANIFEST, Json, optional_json, read_manifest
from nlpmeta.sharing.gather import OWN_DATA, data_facts

SUPPORT_FILES = ("support.json", "support.safetensors")
REPORT_FILE, PROVENANCE_FILE, RESULTS_FILE, PICTURE_FILE = (
    "report.json",
    "provenance.json",
    ".eval_results/nlpmeta.yaml",
    "curve.png",
)
OWNED = ("*.json", "*.safetensors", "README.md", PICTURE_FILE, RESULTS_FILE)
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
            f"The encoder of this model is the folder {facts.encoder!r}, which nobody else has. Push the encoder to "
            "the Hub and adapt with --encoder user/name, or write a whole copy with: nlpmeta export"
        )
    kept = [each for each in facts.files if each not in SUPPORT_FILES or facts.support_is_published]
    for each in kept:
        make_folder((into / each).parent)
        copy_file(folder / each, into / each)
    if REPORT_FILE in kept:
        write_json(into / REPORT_FILE, _without_traces(optional_json(folder / REPORT_FILE)))
    write_json(into / MANIFEST, {**manifest, "files": {each: sha256(into / each) for each in kept}})
    has_picture = facts.measured is not None and draw_curve(facts.measured.curve, into / PICTURE_FILE)
    write_json(into / PROVENANCE_FILE, _provenance(facts))
    if (results := eval_results_yaml(facts)) is not None:
        write_text(into / RESULTS_FILE, results)
    write_text(into / "README.md", card(replace(facts, has_picture=has_picture), name))


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
