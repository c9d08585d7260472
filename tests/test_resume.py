"""A run that is killed and resumed must end with the same bits as one that was not."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import train_slowly

from nlpmeta.errors import DataWarning, ModelFolderError, NLPMetaError, WorkFailedError
from nlpmeta.training import resume
from nlpmeta.training.forecast import Journal

pytestmark = pytest.mark.slow  # a run that has to be killed takes its time
TIMING = ("seconds", "episodes_per_second")


def lines(folder):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMING} for line in found]


def weights(learner):
    return {name: weight.detach() for name, weight in learner.named_parameters() if weight.requires_grad}


def assert_same_bits(one, two):
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        learner, result = train_slowly.run(folder, resume=False)
    return folder, weights(learner), result


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of the same run, killed with SIGKILL after its seventh step."""
    folder = tmp_path_factory.mktemp("killed")
    metrics = folder / "metrics.jsonl"
    process = subprocess.Popen(
        [sys.executable, train_slowly.__file__, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(Path.cwd())},
    )
    try:
        deadline = time.monotonic() + 120
        while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= 7):
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    return folder


def resumed(killed, tmp_path, **changes):
    folder = tmp_path / "run"
    shutil.copytree(killed, folder)
    with torch.random.fork_rng():
        torch.manual_seed(99)  # whatever the state of the new process, the one of the checkpoint counts
        learner, result = train_slowly.run(folder, resume=True, **changes)
    return folder, weights(learner), result


def checkpoints(folder):
    return sorted((folder / "checkpoints").glob("step-*"))


def test_a_disk_that_fills_in_the_middle_stops_a_run_which_goes_on_with_the_same_bits(uninterrupted, tmp_path):
    folder, write = tmp_path / "full", resume.write_bytes

    def full(path, content):
        if "step-00000006" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setattr(resume, "write_bytes", full)
        torch.manual_seed(3)
        with pytest.raises(WorkFailedError, match="the disk is full"):
            train_slowly.run(folder, resume=False)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000003"]
    there, found, result = resumed(folder, tmp_path)
    assert_same_bits(found, uninterrupted[1])
    assert lines(there) == lines(uninterrupted[0])
    assert (result.best_step, result.best_accuracy) == (uninterrupted[2].best_step, uninterrupted[2].best_accuracy)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_said_of_the_metrics_and_not_of_standard_output(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    journal = Journal(tmp_path, train_slowly.SETTINGS, SimpleNamespace(is_main_process=True), show_progress=False)
    with pytest.raises(WorkFailedError, match=r"metrics\.jsonl: the disk is full"):
        journal.write({"step": 1, "loss": 1.0})


def test_killed_and_resumed_gives_the_same_bits_and_metrics(uninterrupted, killed, tmp_path):
    assert len(checkpoints(killed)) == 2
    assert checkpoints(killed)[-1].name == "step-00000006"
    folder, found, result = resumed(killed, tmp_path)
    assert_same_bits(found, uninterrupted[1])
    assert lines(folder) == lines(uninterrupted[0])
    assert (result.best_step, result.best_accuracy) == (uninterrupted[2].best_step, uninterrupted[2].best_accuracy)


@pytest.mark.parametrize("damage", ["flipped bit", "cut", "no facts", "facts changed"])
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_message(uninterrupted, killed, tmp_path, damage):
    copy = tmp_path / "damaged"
    shutil.copytree(killed, copy)
    tensors, facts = (checkpoints(copy)[-1] / name for name in ("state.safetensors", "state.json"))
    content = bytearray(tensors.read_bytes())
    if damage == "flipped bit":
        content[len(content) // 2] ^= 1
        tensors.write_bytes(content)
    elif damage == "cut":
        tensors.write_bytes(content[:-100])
    elif damage == "no facts":
        facts.unlink()
    else:
        facts.write_text(facts.read_text().replace('"step": 6', '"step": 5'))
    with pytest.warns(DataWarning, match=r"step-00000006 is damaged .*; the one before it is used"):
        folder, found, _ = resumed(copy, tmp_path)
    assert_same_bits(found, uninterrupted[1])
    assert lines(folder) == lines(uninterrupted[0])


def test_when_no_checkpoint_is_whole_the_run_says_so(killed, tmp_path):
    copy = tmp_path / "damaged"
    shutil.copytree(killed, copy)
    for folder in checkpoints(copy):
        (folder / "state.safetensors").write_bytes(b"")
    with pytest.warns(DataWarning), pytest.raises(ModelFolderError, match="None of the checkpoints"):
        resumed(copy, tmp_path)


def test_a_finished_run_resumes_to_itself(uninterrupted, tmp_path):
    folder, found, result = resumed(uninterrupted[0], tmp_path)
    assert_same_bits(found, uninterrupted[1])
    assert lines(folder) == lines(uninterrupted[0])
    assert result.steps == 12


def test_resuming_where_nothing_is_starts_from_the_beginning(uninterrupted, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        learner, _ = train_slowly.run(tmp_path / "new", resume=True)
    assert_same_bits(weights(learner), uninterrupted[1])


def test_a_run_is_not_written_over(killed):
    before = lines(killed)
    with pytest.raises(NLPMetaError, match="holds a run. Continue it with --resume"):
        train_slowly.run(killed, resume=False)
    assert lines(killed) == before


def test_other_settings_are_refused_by_name(killed, tmp_path):
    with pytest.raises(NLPMetaError, match="learning_rate was 0.005, now 0.1"):
        resumed(killed, tmp_path, learning_rate=0.1)


def test_the_planted_fault_of_lost_moments_is_seen(uninterrupted, killed, tmp_path, monkeypatch):
    """Without Adam's moments the weights differ: the comparison above would notice."""
    from nlpmeta.training import resume

    whole = resume._distribute

    def forgetful(tensors, *args):
        whole({name: value * (0 if name.startswith("exp_avg/") else 1) for name, value in tensors.items()}, *args)

    monkeypatch.setattr(resume, "_distribute", forgetful)
    _, found, _ = resumed(killed, tmp_path)
    assert not all(torch.equal(found[name], uninterrupted[1][name]) for name in found)


def test_old_checkpoints_are_removed(uninterrupted):
    assert [folder.name for folder in checkpoints(uninterrupted[0])] == ["step-00000009", "step-00000012"]
