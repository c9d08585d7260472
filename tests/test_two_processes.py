"""Two processes with an episode each must take the step of one process with two."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import train_in_processes
from safetensors.torch import load_file


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def in_two_processes(folder, *options):
    port = str(free_port())
    processes = []
    for rank in ("0", "1"):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {**os.environ, **place, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
        command = [sys.executable, train_in_processes.__file__, str(folder), *options]
        processes.append(subprocess.Popen(command, env=environment))
    try:
        assert [process.wait(timeout=150) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return folder


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    return in_two_processes(tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def by_one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    assert train_in_processes.run(folder) == 1
    return folder


def state(folder):
    """Everything that the run came to: weights, their average, the optimiser's moments."""
    tensors = load_file(folder / "checkpoints" / "step-00000003" / "state.safetensors")
    return {name: tensor for name, tensor in tensors.items() if name != "random"}


@pytest.mark.slow
def test_two_processes_take_the_step_of_one(by_one, by_two):
    assert (by_two / "processes").read_text() == "2"
    one, two = state(by_one), state(by_two)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5)
    moved = max(float(weight.abs().max()) for name, weight in one.items() if ".lora_B." in name)
    assert moved > 1e-3  # weights that stayed where they were would agree too


@pytest.mark.slow
def test_the_metrics_are_those_of_all_processes(by_one, by_two):
    one, two = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (by_one, by_two)
    )
    assert [line["step"] for line in two] == [1, 2, 3]
    for name in ("loss", "episodic", "contrastive", "anchor", "accuracy", "grad_norm"):
        assert [line[name] for line in two] == pytest.approx([line[name] for line in one], abs=1e-5)
    assert two[-1]["heldout_mean"] == pytest.approx(one[-1]["heldout_mean"])


@pytest.mark.slow
def test_where_one_process_has_no_loss_all_stop_at_the_same_step(tmp_path):
    folder = in_two_processes(tmp_path, "--spoiled")
    said = {(folder / f"diverged-{rank}").read_text() for rank in ("0", "1")}
    assert len(said) == 1 and "stopped at step 1: the loss is not a finite number" in said.pop()
