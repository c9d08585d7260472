"""A push whose process is killed: the Hub is as it was, the next push finishes it, and nothing of it stays here."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hub_fixture import ENCODER
from hub_server import TOKEN, Fault

from nlpmeta import FewShotClassifier, TextEncoder
from nlpmeta.sharing import Sharing, owned_target, push_model

NAME = "user/topics"
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def folder(encoder_folder, pool, tmp_path):
    encoder = TextEncoder.from_pretrained(str(encoder_folder), max_length=32)
    encoder.files = replace(encoder.files, name=ENCODER)  # the same files, under the name that the server has for them
    model = FewShotClassifier("ridge", encoder=encoder).fit(pool.texts[::4], pool.names()[::4])
    model.save_pretrained(tmp_path / "model", include_support=True)
    return tmp_path / "model"


def start_push(hub, folder, tmp_path):
    """A process that pushes with all that it takes from this machine below ``tmp_path``."""
    (tmp_path / "tmp").mkdir(exist_ok=True)
    places = {"HF_HOME": str(tmp_path / "hf"), "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(Path.cwd())}
    server = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "nlpmeta", "push", str(folder), NAME, "--include-support"]
    return subprocess.Popen(command, env={**os.environ, **places, **server}, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "was_there"), [("PUT /large/", False), ("POST .*/commit/", True)])
def test_a_push_that_is_killed_leaves_the_hub_as_it_was_and_nothing_here(
    moment, was_there, hub, folder, pool, tmp_path, monkeypatch
):
    if was_there:
        hub.add(NAME, {"README.md": b"before", "labels.json": b"{}"}, private=True)
    before = [*hub.repositories[NAME].log] if was_there else []
    pushing: list[subprocess.Popen] = []
    hub.faults.append(Fault(moment, cut=True, before=lambda: os.kill(pushing[0].pid, signal.SIGKILL)))
    with hub.lock:  # no answer before the server knows whom to kill
        pushing.append(start_push(hub, folder, tmp_path))
    _, said = pushing[0].communicate(timeout=120)
    assert pushing[0].returncode == -signal.SIGKILL, said
    repository = hub.repositories[NAME]
    if was_there:
        assert repository.log == before
    else:  # made, and empty but for what the Hub itself puts in
        assert [message for _, message in repository.log] == ["initial commit"]
        assert set(repository.trees[repository.refs["main"]]) == {".gitattributes"}
        assert repository.private
    assert len(list((tmp_path / "tmp").iterdir())) == 1  # what it was about to send; it could not clear it away
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    push_model(folder, owned_target(NAME, private=None, revision=None, as_pull_request=False), Sharing())
    assert len(repository.log) == 2
    assert FewShotClassifier.from_pretrained(NAME).predict(pool.texts[:1]).tolist() == ["sport"]
    assert not list((tmp_path / "tmp").iterdir())
