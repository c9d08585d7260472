"""The image for serving: its steps in a clean directory, since no image can be built where tests run."""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import save_encoder

from nlpmeta import TextEncoder
from nlpmeta.export.head import compile_names
from nlpmeta.learners.checkpoint import save_checkpoint
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.learners.start import starting_learner

ROOT = Path(__file__).parent.parent
NEEDED = [line for line in (ROOT / "requirements-serve.txt").read_text().splitlines() if line and line[0] != "#"]


def test_what_the_image_installs_is_what_was_tested_together_and_no_torch_is_among_it():
    locked = {line.lower().replace("_", "-") for line in (ROOT / "requirements.lock").read_text().splitlines()}
    assert set(NEEDED) <= locked
    assert not [line for line in NEEDED if re.match(r"torch|transformers|scikit|scipy|nvidia", line)]


def test_the_image_copies_what_is_there_and_does_not_run_as_root():
    steps = (ROOT / "Dockerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (?!--from)(.*)", steps, re.M) for name in line.split()[:-1]]
    assert copied and all((ROOT / name).exists() for name in copied if "[" not in name)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {name.replace("[", "").replace("]", "") for name in copied} <= allowed
    assert steps.index("USER nlpmeta") < steps.index("ENTRYPOINT")


@pytest.mark.slow
def test_the_steps_of_the_image_serve_answers_by_names_without_torch(tmp_path, monkeypatch):
    monkeypatch.setenv("NLPMETA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "encoder").mkdir()
    encoder = TextEncoder.from_pretrained(str(save_encoder(tmp_path / "encoder")), max_length=32)
    save_checkpoint(PrototypicalNetwork(encoder, metric="cosine", names=True), tmp_path / "start", {})
    start = tmp_path / "start"
    compile_names(starting_learner("auto", checkpoint=str(start), device="cpu"), start, "onnx")
    clean = tmp_path / "clean"
    subprocess.run([sys.executable, "-m", "venv", clean], check=True)
    python = clean / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps"]
    done = subprocess.run(
        [*pip, "-r", ROOT / "requirements-serve.txt"], capture_output=True, text=True, check=False, timeout=900
    )
    if done.returncode:
        pytest.skip(f"packages cannot be installed here: {done.stderr.strip()[-200:]}")
    done = subprocess.run([*pip, ROOT], capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    environment = {**os.environ, "NLPMETA_DEVICE": "cpu"}
    environment.pop("PYTHONPATH", None)
    assert subprocess.run([python, "-c", "import torch"], env=environment, check=False, capture_output=True).returncode
    command = [
        clean / "bin" / "nlpmeta",
        "serve",
        "--models",
        tmp_path / "models",
        "--port",
        "0",
        "--checkpoint",
        start,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as process:
        try:
            address = next(found[0] for line in process.stderr if (found := re.search(r"http://[\d.]+:\d+", line)))
            answer = _asked(address, "/v1/classify", {"texts": ["ball team"], "labels": ["sport", "food"]})
            assert answer["answers"][0]["label"] in ("sport", "food")
            classes = [{"label": "sport"}, {"label": "food"}]
            refused = _asked(address, "/v1/models", {"name": "new", "classes": classes})
            assert refused["status"] == 409 and "without PyTorch" in refused["detail"]
        finally:
            process.terminate()


def _asked(address, path, body):
    request = urllib.request.Request(  # noqa: S310  # the address is of this machine
        address + path, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)
