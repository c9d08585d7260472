"""Streams whose checksums are right and whose numbers are not: refused when they are loaded, not later."""

import copy
import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from nlpmeta.auto.method import AutoHead
from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.encoder.lora import AdapterSettings, add_adapter
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import ModelFolderError, NLPMetaError
from nlpmeta.online import OnlineClassifier
from nlpmeta.online.stream import OnlineSettings
from nlpmeta.storage.files import sha256


@pytest.fixture(scope="module")
def stored(encoder_folder, pool, tmp_path_factory):
    classifier = FewShotClassifier("logistic", encoder=str(encoder_folder)).fit(pool.texts[::4], pool.names()[::4])
    online = OnlineClassifier(classifier, OnlineSettings(inner_steps=2, keep_every=2))
    answers = online.receive(list(pool.texts[:12]))
    online.learn([answer.ticket for answer in answers[:6]], list(pool.names()[:6]))
    folder = tmp_path_factory.mktemp("online") / "stream"
    online.save(folder)
    return folder


@pytest.fixture
def folder(stored, tmp_path):
    return shutil.copytree(stored, tmp_path / "stream")


def signed(folder):
    manifest = json.loads((folder / "nlpmeta.json").read_text())
    manifest["files"] = {name: sha256(folder / name) for name in manifest["files"]}
    (folder / "nlpmeta.json").write_text(json.dumps(manifest))
    return folder


def refused(folder):
    with pytest.raises(NLPMetaError) as caught:
        OnlineClassifier.load(signed(folder))
    assert caught.value.exit_code == 1
    assert len(str(caught.value)) < 600


def test_what_was_stored_goes_on(folder, pool):
    online = OnlineClassifier.load(signed(folder))
    before = copy.copy(online.record)
    online.learn(list(online.waiting), list(pool.names()[6:12]))
    assert online.record.n_labels == before.n_labels + 6


def test_a_stream_on_heads_that_read_one_view_of_the_encoder_goes_on(encoder_folder, pool, tmp_path):
    encoder = TextEncoder.from_pretrained(str(encoder_folder))
    add_adapter(encoder, AdapterSettings(rank=2), seed=0)
    learner = AutoHead(encoder).eval()
    fitted = FewShotClassifier(learner).fit(pool.texts[::4], pool.names()[::4]).fitted_
    one_view = {name: value for name, value in fitted.state.items() if " on " not in name.partition("/")[0]}
    state = learner.readapt(learner.support(fitted.examples.data()), one_view)
    state = {name: value.contiguous() for name, value in state.items()}  # as a file stores it, and as fit does
    assert learner.predictor(state).adapter_scales == (1.0,)
    online = OnlineClassifier(FewShotClassifier.from_state(learner, state, fitted.classes, fitted.examples))
    online.save(tmp_path / "stream")
    again = OnlineClassifier.load(tmp_path / "stream")
    assert (again.predict_proba(pool.texts[:8]) == online.predict_proba(pool.texts[:8])).all()


SCALES = [0.0, -1.0, 1e-30, math.nan, math.inf, 3e38]


@pytest.mark.parametrize("scale", SCALES)
def test_a_scale_that_is_none_is_refused(folder, scale):
    tensors = load_file(folder / "stream.safetensors")
    save_file({**tensors, "scale": torch.tensor(scale)}, folder / "stream.safetensors")
    refused(folder)


def test_every_tensor_of_a_wrong_shape_is_refused(folder):
    sound = load_file(folder / "stream.safetensors")
    names = [name for name in sound if name.startswith("0/") or not name[0].isdigit()]
    assert len(names) > 20
    for name in names:
        save_file({**sound, name: torch.ones(7, 3, 2)}, folder / "stream.safetensors")
        refused(folder)
        save_file({each: value for each, value in sound.items() if each != name}, folder / "stream.safetensors")
        refused(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"streams": []},
        {"streams": [{}]},
        {"waiting": [[1e400, 0]]},
        {"waiting": [[6, 99], [7, 0], [8, 0], [9, 0], [10, 0], [11, 0]]},
        {"waiting": [[10**9, 0]]},
        {"waiting": [["x", 0]]},
        {"record": {}},
        {"record": {"fading": 0.9, "n_texts": -1}},
        {"record": {"fading": 0.9, "n_texts": 2, "n_labels": 5, "n_right": 1}},
        {"record": {"fading": 0.9, "n_texts": 12, "n_labels": 6, "n_right": 1, "recent": "x"}},
        {"record": {"fading": 0.9, "n_texts": 12, "n_labels": 6, "n_right": 1, "weight": math.inf}},
        {"settings": {"meta_rate": 1e400}},
        {"settings": {"window": 10**9}},
        {"settings": {"seed": 10**30}},
        {"alarms": [{"n_texts": 1}]},
        {"alarms": 5},
        {"moments": [[1, 2, 3]]},
        {"moments": None},
    ],
)
def test_facts_that_cannot_be_are_refused(folder, change):
    facts = json.loads((folder / "stream.json").read_text())
    (folder / "stream.json").write_text(json.dumps({**facts, **change}))
    refused(folder)


@pytest.mark.parametrize("content", ["[" * 100_000, "null", "[]", '"x"', "{}", "\x00"])
def test_facts_of_another_form_are_refused(folder, content):
    (folder / "stream.json").write_text(content)
    refused(folder)


@pytest.mark.parametrize("value", [99, -1])
def test_a_memory_with_a_class_that_is_not_there_is_refused(folder, value):
    tensors = load_file(folder / "stream.safetensors")
    for name in [name for name in tensors if name.endswith("/labels")]:
        tensors[name][0] = value
    save_file(tensors, folder / "stream.safetensors")
    with pytest.raises(ModelFolderError, match="a class that the classifier has not"):
        OnlineClassifier.load(signed(folder))
