"""A kill at any moment of a save leaves the old state or the new one."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import save_and_die

from nlpmeta.storage.folders import exchange, new_folder

KILLS = 50


@pytest.fixture(scope="module")
def left(encoder_folder, tmp_path_factory):
    """What each kill left, in a process of its own: a fork of this one would take its threads for alive."""
    work = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-W", "ignore", save_and_die.__file__, str(encoder_folder), str(work), str(KILLS), "7"]
    variables = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    run = subprocess.run(command, capture_output=True, text=True, timeout=250, env=variables)
    assert run.returncode == 0, run.stderr[-2000:]
    return work, json.loads(run.stdout)


@pytest.mark.slow
def test_fifty_kills_of_save_pretrained_leave_the_old_model_or_the_new_one(left):
    found = left[1]["save_pretrained"]
    assert len(found) == KILLS and set(found) == {"first", "second"}


@pytest.mark.slow
def test_fifty_kills_of_what_train_writes_leave_the_old_checkpoint_or_the_new_one(left):
    found = left[1]["checkpoint"]
    assert len(found) == KILLS and set(found) == {"first", "second"}


@pytest.mark.slow
def test_a_training_that_is_killed_at_any_time_leaves_whole_files_and_goes_on(left):
    assert "checkpoint" in left[1]["training"]
    assert set(left[1]["training"]) <= {"nothing yet", "checkpoint"}


def test_leftovers_of_killed_processes_go_when_they_are_old(tmp_path):
    old, young = tmp_path / ".model.aaaaaaaaaaaa.tmp", tmp_path / ".model.bbbbbbbbbbbb.tmp"
    other = tmp_path / ".models.aaaaaaaaaaaa.tmp"
    for folder in (old, young, other):
        folder.mkdir()
    for folder in (old, other):
        os.utime(folder, (time.time() - 7200,) * 2)
    with new_folder(tmp_path / "model"):
        pass
    assert (old.exists(), young.exists(), other.exists()) == (False, True, True)


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="only there can folders change places")
def test_two_folders_change_places(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "b").exists() and (tmp_path / "b" / "a").exists()
    assert not exchange(tmp_path / "a", tmp_path / "none")


def test_where_folders_cannot_change_places_the_old_one_still_stands_until_the_new_one_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("nlpmeta.storage.folders.exchange", lambda one, other: False)
    for content in ("one", "two"):
        with new_folder(tmp_path / "model", overwrite=True, also=("part",)) as folder:
            (folder / "part").write_text(content)
    assert (tmp_path / "model" / "part").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
