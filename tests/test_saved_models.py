"""What earlier releases saved is read by this one and answers the same.

The files in ``saved_models`` were written by release 0.1.0 (see ``tools/make_saved_models.py``) and stay as they are.
Of the answers, the label sets of ``auto`` alone follow the thresholds that a release has learned from auxiliary tasks;
they were renewed with those.
"""

import json
import shutil
from pathlib import Path

import pytest
from saved_answers import answers, arithmetic, furthest

from nlpmeta.learners.base import learners

SAVED = Path(__file__).parent / "saved_models"
TOLD = json.loads((SAVED / "answers.json").read_text(encoding="utf-8"))
LIKE_THEN = 1e-6
"""Other processors and other releases of torch add in another order; numbers may then differ by so much."""
SHARP, SHARP_LIKE_THEN = {"checkpoint-prototypical"}, 2e-6
"""Its scores go up to 25, where the next number of float32 is 1.9e-6 away."""
TRAINED_LIKE_THEN = 1e-2
"""Steps of training carry such differences on."""


@pytest.mark.parametrize("name", sorted(TOLD["answers"]))
def test_what_was_saved_before_answers_the_same(name, tmp_path, monkeypatch):
    shutil.copytree(SAVED, tmp_path / "saved")
    monkeypatch.chdir(tmp_path / "saved")
    found = json.loads(json.dumps(answers(Path(name))))
    allowed = SHARP_LIKE_THEN if name in SHARP else TRAINED_LIKE_THEN if name in ("run", "tasks") else LIKE_THEN
    then = TOLD["arithmetic_of"].get(name, TOLD["arithmetic"])  # what was added later was saved on another processor
    assert furthest(found, TOLD["answers"][name]) <= (0.0 if arithmetic() == then else allowed)


def test_answers_differ_by_their_furthest_number_and_infinitely_in_anything_else():
    then = {"labels": ["food"], "probabilities": [[0.25, 0.75]]}
    assert furthest({**then, "probabilities": [[0.5, 0.5]]}, then) == 0.25
    assert furthest({**then, "labels": ["sport"]}, then) == furthest({"labels": ["food"]}, then) == float("inf")


def test_every_method_is_among_what_was_saved_before():
    kinds = {json.loads(path.read_text())["learner"]["name"] for path in SAVED.glob("adapted-*/nlpmeta.json")}
    assert kinds == set(learners)


def test_what_was_saved_before_is_listed_and_small():
    saved = {path.name for path in SAVED.iterdir()} - {"encoder", "answers.json"}
    assert saved == set(TOLD["answers"])
    assert sum(path.stat().st_size for path in SAVED.rglob("*") if path.is_file()) < 400_000
