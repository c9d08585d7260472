"""What ``nlpmeta doctor`` finds, on a machine that is well and on ones where something is wrong."""

import importlib.metadata
import json
import shutil

import pytest

from nlpmeta.cli import doctor, main
from nlpmeta.cli.doctor import examine
from nlpmeta.errors import ModelFolderError
from nlpmeta.learners import start as starting
from nlpmeta.storage.files import user_cache


def found():
    return {finding.what: finding for finding in examine()}


@pytest.mark.slow
def test_everything_is_well_here():
    findings = found()
    assert {each.verdict for each in findings.values()} <= {"ok", "note"}
    assert findings["checkpoints"].said == "whole: maml, mann, multilingual, rnn, snail"
    assert "torch" in findings["packages"].said


def test_a_missing_and_an_old_package_are_named_with_what_is_needed(monkeypatch):
    plain = importlib.metadata.version

    def version(name):
        if name == "peft":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.0.1" if name == "rich" else plain(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    packages = found()["packages"]
    assert packages.verdict == "failed"
    assert "peft (missing)" in packages.said
    assert "rich 0.0.1 (needs >=13.9)" in packages.said


def test_extras_that_are_not_there_are_no_failure(monkeypatch):
    plain = importlib.metadata.version

    def version(name):
        if name in ("matplotlib", "ray", "setfit"):
            raise importlib.metadata.PackageNotFoundError(name)
        return plain(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    extras = found()["extras"]
    assert extras.verdict == "ok"
    assert extras.said.endswith("serve, xlsx, onnx; not installed: plot, ray, bench")


def test_a_damaged_checkpoint_is_found(monkeypatch, tmp_path):
    shutil.copytree(starting.SHIPPED, tmp_path / "multilingual")
    weights = tmp_path / "multilingual" / "learner.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    monkeypatch.setattr(starting, "CHECKPOINTS", tmp_path)
    checkpoints = found()["checkpoints"]
    assert checkpoints.verdict == "failed"
    assert "learner.safetensors" in checkpoints.said


def test_a_data_folder_that_is_not_there_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("NLPMETA_DATA_DIR", str(tmp_path / "nowhere"))
    assert found()["data"].verdict == "failed"
    (tmp_path / "nowhere" / "injongo").mkdir(parents=True)
    assert found()["data"].said.endswith("1 sets")


def test_weights_that_understand_nothing_are_found(monkeypatch):
    from nlpmeta.encoder.text_encoder import TextEncoder

    plain = TextEncoder.encode
    monkeypatch.setattr(TextEncoder, "encode", lambda self, texts, **k: plain(self, texts, **k)[[0, 2, 1]])
    embedding = found()["embedding"]
    if embedding.verdict == "note":
        pytest.skip("the encoder is not on this machine")
    assert embedding.verdict == "failed"


def test_an_error_in_one_look_does_not_stop_the_others(monkeypatch):
    def broken():
        raise ModelFolderError("no such thing")

    monkeypatch.setattr(doctor, "_encoder", broken)
    findings = found()
    assert findings["broken"].verdict == "failed"
    assert findings["hub"].verdict == "ok"


def test_the_token_is_not_printed_and_nothing_is_written(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    before = sorted(user_cache().rglob("*")) if user_cache().is_dir() else []
    assert main(["doctor"]) == 0
    printed = capsys.readouterr()
    assert "hf_secret" not in printed.out + printed.err
    assert "logged in" in printed.out
    assert (sorted(user_cache().rglob("*")) if user_cache().is_dir() else []) == before


def test_the_exit_code_and_json_say_whether_it_works(monkeypatch, capsys, tmp_path):
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["works"] is True
    monkeypatch.setenv("NLPMETA_DATA_DIR", str(tmp_path / "nowhere"))
    assert main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["works"] is False
    assert [each["what"] for each in report["findings"] if each["verdict"] == "failed"] == ["data"]
