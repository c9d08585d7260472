"""Reading never writes, replacing spares what is not ours, and two trainings do not share a folder."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from save_and_die import learner as adapted_learner

from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.errors import DataWarning, ModelFolderError, NLPMetaError
from nlpmeta.learners.checkpoint import load_checkpoint, save_checkpoint
from nlpmeta.storage import remove_leftovers, temporary_beside
from nlpmeta.storage.files import sha256, write_json, write_text
from nlpmeta.storage.folders import check_new_folder, new_folder, only_one
from nlpmeta.storage.manifest import MANIFEST, PARTS, describe, finish_save, read_manifest, whole_folder, write_manifest
from nlpmeta.training.engine import run_recipe
from nlpmeta.training.recipe_files import load_recipe
from nlpmeta.training.resume import Checkpoints

TEXTS, LABELS = ["ball goal", "rice soup", "loan rate"], ["sport", "food", "money"]


@pytest.fixture(scope="module")
def saved(encoder_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    FewShotClassifier("prototypical", encoder=str(encoder_folder)).fit(TEXTS, LABELS).save_pretrained(folder)
    return folder


@pytest.fixture
def model(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "model"))


def everything(folder):
    """Every path below ``folder`` with its content, links as where they lead."""
    paths = sorted(folder.rglob("*"))
    return {str(p): os.readlink(p) if p.is_symlink() else p.read_bytes() if p.is_file() else None for p in paths}


def relist(folder, change):
    """Change the manifest of a folder; its digests are those of the files as they are."""
    facts = json.loads((folder / MANIFEST).read_text())
    facts["files"] = {name: sha256(folder / name) for name in facts["files"] if (folder / name).is_file()}
    change(facts)
    (folder / MANIFEST).write_text(json.dumps(facts))


# Reading


@pytest.mark.parametrize("kind", ["link", "folder", "link to a save"])
def test_reading_a_model_with_a_stranger_s_parts_changes_nothing_and_takes_nothing_from_them(model, tmp_path, kind):
    mine = tmp_path / "mine"
    mine.mkdir()
    if kind == "folder":
        mine = model / PARTS
        mine.mkdir()
        shutil.copy(model / "labels.json", mine)
        (mine / "labels.json").write_text((mine / "labels.json").read_text().replace("sport", "CHANGED"))
        write_manifest(mine, {"kind": "checkpoint"})
    else:
        (mine / "thesis.txt").write_text("years")
        shutil.copy(model / MANIFEST, mine)
        if kind == "link to a save":
            shutil.copytree(model, mine, dirs_exist_ok=True)
        (model / PARTS).symlink_to(mine)
    before = everything(tmp_path)
    describe(model)
    assert FewShotClassifier.from_pretrained(model).predict(["goal"]).tolist() == ["sport"]
    assert everything(tmp_path) == before


def test_a_checkpoint_whose_save_was_cut_off_is_read_where_it_lies_and_finished_by_the_next_save(
    encoder_folder, tmp_path
):
    old, new = (adapted_learner(str(encoder_folder), shift) for shift in (0.01, 0.2))
    folder = tmp_path / "run"
    save_checkpoint(old, folder, {"steps": 1})
    save_checkpoint(new, tmp_path / "other", {"steps": 2})
    shutil.copytree(tmp_path / "other", folder / PARTS)  # all parts are there, none was copied
    shutil.copy(folder / PARTS / "learner.safetensors", folder)  # the first one was
    before = everything(folder)
    assert read_manifest(whole_folder(folder))["training"]["steps"] == 2
    load_checkpoint(folder)
    assert everything(folder) == before
    finish_save(folder)
    assert read_manifest(folder)["training"]["steps"] == 2 and not (folder / PARTS).exists()


def test_parts_that_are_not_all_there_do_not_count(encoder_folder, tmp_path):
    save_checkpoint(adapted_learner(str(encoder_folder), 0.01), tmp_path / "run", {"steps": 1})
    shutil.copytree(tmp_path / "run", tmp_path / "run" / PARTS)
    (tmp_path / "run" / PARTS / "learner.safetensors").unlink()
    assert whole_folder(tmp_path / "run") == tmp_path / "run"
    save_checkpoint(adapted_learner(str(encoder_folder), 0.2), tmp_path / "run", {"steps": 3})
    assert read_manifest(tmp_path / "run")["training"]["steps"] == 3


@pytest.mark.parametrize("name", ["labels.json", "task.safetensors", "learner.safetensors"])
def test_a_file_that_is_read_has_to_be_listed(model, name):
    relist(model, lambda facts: facts["files"].pop(name))
    with pytest.raises(ModelFolderError, match=f"does not list {name}"):
        FewShotClassifier.from_pretrained(model)


def test_an_empty_list_of_files_loads_nothing(model):
    relist(model, lambda facts: facts["files"].clear())
    with pytest.raises(ModelFolderError, match="does not list"):
        FewShotClassifier.from_pretrained(model)


@pytest.mark.parametrize("name", ["report.json", "support.json", "adapter_config.json"])
def test_a_file_that_would_be_read_if_it_is_there_has_to_be_listed(model, name):
    (model / name).write_text("{}")
    with pytest.raises(ModelFolderError, match=f"holds {name}"):
        FewShotClassifier.from_pretrained(model)


@pytest.mark.parametrize("listed", [True, False])
def test_a_link_is_not_followed_even_to_the_right_content(model, tmp_path, listed):
    shutil.move(model / "labels.json", tmp_path / "labels.json")
    (model / "labels.json").symlink_to(tmp_path / "labels.json")
    if not listed:
        relist(model, lambda facts: facts["files"].pop("labels.json"))
    with pytest.raises(NLPMetaError, match="labels.json"):
        FewShotClassifier.from_pretrained(model)


def test_a_link_inside_the_folder_is_not_followed_either(model):
    shutil.move(model / "labels.json", model / "names.json")
    (model / "labels.json").symlink_to("names.json")
    with pytest.raises(ModelFolderError, match="is a link"):
        FewShotClassifier.from_pretrained(model)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["labels.json", MANIFEST, "task.safetensors"])
def test_a_pipe_is_refused_and_not_waited_for(model, name):
    (model / name).unlink()
    os.mkfifo(model / name)
    with pytest.raises(ModelFolderError, match="not a regular file"):
        FewShotClassifier.from_pretrained(model)


def test_a_file_larger_than_its_kind_can_be_is_refused_before_it_is_read(model):
    with (model / "labels.json").open("ab") as file:
        file.truncate(65 << 20)
    with pytest.raises(ModelFolderError, match="is the limit"):
        FewShotClassifier.from_pretrained(model)


# Replacing


@pytest.mark.parametrize("theirs", ["thesis.txt", ".DS_Store", "photos/a.jpg", "photos/", "link"])
def test_a_folder_with_something_of_the_user_s_is_not_replaced(model, theirs):
    if theirs.endswith("/"):
        (model / theirs).mkdir()
    elif theirs == "link":
        (model / theirs).symlink_to("/")
    else:
        (model / theirs).parent.mkdir(exist_ok=True)
        (model / theirs).write_text("years")
    before = everything(model)
    with pytest.raises(NLPMetaError, match=theirs.partition("/")[0]):
        FewShotClassifier.from_pretrained(model).save_pretrained(model, overwrite=True)
    assert everything(model) == before


def test_a_listed_file_that_the_user_changed_is_not_replaced(tmp_path):
    with new_folder(tmp_path / "model") as folder:
        write_text(folder / "README.md", "card")
        write_manifest(folder, {"kind": "adapted"})
    (tmp_path / "model" / "README.md").write_text("my own card")
    with pytest.raises(NLPMetaError, match="README.md"):
        check_new_folder(tmp_path / "model", overwrite=True)


def test_a_manifest_of_somebody_s_own_makes_no_folder_ours(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for content in ("mine", "[]", '{"files": {"a": "b"}}', '{"files": []}'):
        (folder / MANIFEST).write_text(content)
        with pytest.raises(NLPMetaError, match=MANIFEST):
            check_new_folder(folder, overwrite=True)


def test_a_manifest_that_lists_files_elsewhere_removes_none(model, tmp_path):
    mine = tmp_path / "thesis.txt"
    mine.write_text("years")
    loaded = FewShotClassifier.from_pretrained(model)
    names = {"../thesis.txt": sha256(mine), str(mine): sha256(mine)}
    relist(model, lambda facts: facts["files"].update(names))
    loaded.save_pretrained(model, overwrite=True)
    assert mine.read_text() == "years"
    assert FewShotClassifier.from_pretrained(model).predict(["goal"]).tolist() == ["sport"]


def test_what_arrives_while_the_new_folder_is_filled_stays(model):
    with pytest.raises(NLPMetaError, match="thesis.txt"), new_folder(model, overwrite=True) as folder:
        write_text(folder / "new", "")
        (model / "thesis.txt").write_text("years")
    assert (model / "thesis.txt").read_text() == "years" and (model / MANIFEST).exists()


def test_what_arrives_in_the_very_moment_is_put_beside(model, monkeypatch):
    from nlpmeta.storage import folders

    def late(new, path):
        (path / "thesis.txt").write_text("years")
        return exchange(new, path)

    exchange = folders.exchange
    monkeypatch.setattr(folders, "exchange", late)
    with pytest.warns(DataWarning, match="kept"), new_folder(model, overwrite=True) as folder:
        write_text(folder / "new", "")
    [kept] = model.parent.glob("model.kept-*")
    assert [path.name for path in kept.iterdir()] == ["thesis.txt"] and [p.name for p in model.iterdir()] == ["new"]


def test_the_working_folder_and_a_folder_that_cannot_be_are_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for path, words in ((".", "working in"), ("file", "is a file"), ("file/x", "is a file, not a folder")):
        with pytest.raises(NLPMetaError, match=words):
            check_new_folder(Path(path), overwrite=True)
    with pytest.raises(NLPMetaError, match="too long"):
        check_new_folder(tmp_path / ("x" * 300))


def test_a_link_to_a_model_stays_a_link_to_the_new_one(model, tmp_path):
    (tmp_path / "latest").symlink_to(model)
    FewShotClassifier.from_pretrained(model).save_pretrained(tmp_path / "latest", overwrite=True)
    assert (tmp_path / "latest").is_symlink() and read_manifest(model)["kind"] == "adapted"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_every_file_has_the_permissions_of_a_new_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        with new_folder(tmp_path / "model") as folder:
            for name, mode in (("private", 0o600), ("open", 0o777)):
                (folder / name).touch()
                (folder / name).chmod(mode)
        write_json(tmp_path / "one.json", {})
    finally:
        os.umask(before)
    found = [*(tmp_path / "model").iterdir(), tmp_path / "one.json"]
    assert {path.stat().st_mode & 0o777 for path in found} == {0o666 & ~umask}


# Leftovers


def leftover_of(pid, path, suffix="tmp"):
    return path.with_name(temporary_beside(path, suffix=suffix).name.replace(f"-{os.getpid()}-", f"-{pid}-"))


@pytest.fixture
def dead():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_process_left_goes_at_the_next_save_and_what_lives_stays(tmp_path, dead):
    path = tmp_path / "report.json"
    gone, alive, other = leftover_of(dead, path), temporary_beside(path), leftover_of(dead, tmp_path / "b.json")
    mine = tmp_path / ".report.json.mine.tmp"
    for file in (gone, alive, other, mine):
        file.touch()
    write_json(path, {})
    assert [file.exists() for file in (gone, alive, other, mine)] == [False, True, True, True]


def test_a_folder_that_a_killed_save_had_moved_aside_comes_back(tmp_path, dead):
    path = tmp_path / "model"
    leftover_of(dead, path, "old").mkdir()
    remove_leftovers(path)
    assert path.is_dir()


def test_a_link_that_looks_like_a_leftover_is_not_followed(tmp_path, dead):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    leftover_of(dead, tmp_path / "model").symlink_to(tmp_path / "mine")
    with new_folder(tmp_path / "model"):
        pass
    assert (tmp_path / "mine" / "thesis.txt").exists()


# Training


def recipe(encoder_folder, out, **more):
    file = Path(out).parent / "tiny.yaml"
    file.write_text(
        f"encoder: {{name: {encoder_folder}, max_length: 32}}\nadapter: {{rank: 2}}\nsteps: 2\ncheckpoint_every: 1\n"
        "data:\n  - {source: starter, langs: [en], n_way: 3, n_shot: 1, n_query: 1}\n"
    )
    return load_recipe(str(file), [f"out={out}", *(f"{key}={value}" for key, value in more.items())])


@pytest.mark.parametrize("name", ["recipe.json", "metrics.jsonl", "nlpmeta.json", "learner.safetensors"])
@pytest.mark.parametrize("resume", [False, True])
def test_training_takes_no_file_of_the_user_s(encoder_folder, tmp_path, name, resume):
    out = tmp_path / "run"
    out.mkdir()
    (out / name).write_text("mine")
    before = everything(out)
    with pytest.raises(NLPMetaError, match=name):
        run_recipe(recipe(encoder_folder, out), resume=resume)
    assert everything(out) == before


def test_a_second_training_in_the_folder_is_refused_with_the_process_that_has_it(encoder_folder, tmp_path):
    out = tmp_path / "run"
    with only_one(out / ".training.lock", "training"):
        with pytest.raises(NLPMetaError, match=str(os.getpid())):
            run_recipe(recipe(encoder_folder, out))
        assert not (out / "recipe.json").exists()
    assert run_recipe(recipe(encoder_folder, out)).result.steps == 2
    assert not (out / ".training.lock").exists()


def test_the_lock_of_a_killed_training_is_taken_over(tmp_path):
    lock = tmp_path / ".training.lock"
    code = "import sys,os;from pathlib import Path;from nlpmeta.storage.folders import only_one\n"
    code += "with only_one(Path(sys.argv[1]), 'training'): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(lock)], check=False, timeout=60)
    assert lock.exists()
    with only_one(lock, "training"):
        pass


def test_a_step_that_a_living_process_writes_is_not_removed(encoder_folder, tmp_path, dead):
    out = tmp_path / "run"
    steps = out / "checkpoints"
    steps.mkdir(parents=True)
    living, gone = temporary_beside(steps / "step-00000009"), leftover_of(dead, steps / "step-00000008")
    living.mkdir()
    gone.mkdir()
    os.utime(living, (time.time() - 600,) * 2)
    run_recipe(recipe(encoder_folder, out))
    assert Checkpoints(out, recipe(encoder_folder, out).settings(), is_main=True)._found()
    assert living.exists() and not gone.exists()
