"""Where a model goes is decided before any work, and nothing of the user's is ever in its way."""

import json

import pytest

from nlpmeta.errors import NLPMetaError
from nlpmeta.evaluation.request import HOME, choose_place
from nlpmeta.storage.files import write_json, write_text
from nlpmeta.storage.manifest import write_manifest

TASK = {"data": "topics.csv", "shots": 2}


def placed(out=None, *, task=TASK, overwrite=False):
    return choose_place(out, name="topics", task=task, overwrite=overwrite)


def model_at(folder, task=TASK):
    folder.mkdir(parents=True)
    write_json(folder / "report.json", {"task": task})
    write_manifest(folder, {"kind": "adapted"})
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize("out", [".", "file/model", "file", "n" * 300, "file/../file/x", "/proc/model"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_place_that_cannot_be_is_refused_and_nothing_is_made(here, out, overwrite):
    write_text(here / "file", "mine")
    with pytest.raises(NLPMetaError):
        placed(here / out, overwrite=overwrite)
    assert [path.name for path in here.iterdir()] == ["file"]


def test_a_folder_asked_for_is_replaced_only_with_the_word_and_only_if_it_is_a_model_s_alone(here):
    folder = model_at(here / "mine")
    with pytest.raises(NLPMetaError, match="Pass --overwrite"):
        placed(folder)
    assert placed(folder, overwrite=True).replace
    write_text(folder / "thesis.txt", "years")
    with pytest.raises(NLPMetaError, match=r"thesis\.txt"):
        placed(folder, overwrite=True)


def test_the_same_command_has_the_same_place_and_another_one_the_next_number():
    assert placed() == placed()
    model_at(HOME / "topics")
    assert (placed().folder, placed().replace) == (HOME / "topics", True)
    assert placed(task={**TASK, "shots": 3}).folder == HOME / "topics-2"


@pytest.mark.parametrize("name", ["notes.txt", "plots/curve.png", "report.json"])
def test_a_default_place_with_files_of_the_user_s_is_left_alone(name):
    folder = model_at(HOME / "topics")
    (folder / name).parent.mkdir(exist_ok=True)
    write_text(folder / name, json.dumps({"task": TASK, "mine": True}))
    assert (placed().folder, placed().replace) == (HOME / "topics-2", False)


def test_a_link_that_leads_nowhere_is_not_written_through():
    HOME.mkdir()
    (HOME / "topics").symlink_to("elsewhere")
    assert placed().folder == HOME / "topics-2"
