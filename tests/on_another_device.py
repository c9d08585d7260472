"""Run by ``test_devices`` in a process of its own, since a device cannot be taken back once it is there.

Whatever is computed where the encoder is must come out as on the CPU; a tensor that is made without a device, or left
on the CPU, is refused by ``another_device``.
"""

from itertools import pairwise

import numpy as np
import pytest
import torch
from another_device import ELSEWHERE, Elsewhere, another_device
from conftest import TOPICS, make_encoder

from nlpmeta import AdapterStore, FewShotClassifier, OnlineClassifier, TextEncoder
from nlpmeta.encoder import device as devices
from nlpmeta.encoder.lora import AdapterSettings, adapter_weights, add_adapter, save_adapter
from nlpmeta.learners.base import learners

PAIRS = [(" ".join(pair), name) for name, words in TOPICS.items() for pair in pairwise(words.split())]
TEXTS, LABELS = [text for text, _ in PAIRS], [name for _, name in PAIRS]
MORE = ["team match", "salt soup", "rate cash loan"]
QUERIES = ["goal team", "bread", "bank rate", "soup ball"]


@pytest.fixture(autouse=True)
def _there_is_another_device(monkeypatch):
    known = devices.devices
    monkeypatch.setattr(devices, "devices", lambda: [str(ELSEWHERE), *known()])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("encoder")
    encoder = make_encoder(dropout=0.0)
    encoder.backbone.save_pretrained(place)
    encoder.tokenizer.save_pretrained(place)
    return str(place)


def loaded(folder, where, *, adapted):
    encoder = TextEncoder.from_pretrained(folder, device=where, max_length=16)
    if adapted:
        add_adapter(encoder, AdapterSettings(rank=2, layers=1), seed=0)
        generator = torch.Generator("cpu").manual_seed(1)
        for weight in adapter_weights(encoder).values():
            drawn = torch.empty(weight.shape, device="cpu").normal_(std=0.3, generator=generator)
            weight.data.copy_(drawn.to(weight.device))
    return encoder


def fitted(name, folder, where, *, adapted):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = learners[name](loaded(folder, where, adapted=adapted))
    classifier = FewShotClassifier(learner).fit(TEXTS, LABELS)
    first = classifier.predict_proba(QUERIES)
    classifier.partial_fit(MORE, ["sport", "food", "money"])
    return classifier, first


def close(one, other):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "adapted"), [*((name, True) for name in sorted(learners)), ("auto", False)])
def test_a_learner_does_all_its_work_where_its_encoder_is(name, adapted, folder, tmp_path):
    here, first_here = fitted(name, folder, "cpu", adapted=adapted)
    with another_device():
        there, first_there = fitted(name, folder, ELSEWHERE, adapted=adapted)
        assert all(isinstance(tensor, Elsewhere) for tensor in there.state_.values())
        assert all(isinstance(weight.data, Elsewhere) for weight in there.learner_.parameters())
        close(first_there, first_here)
        close(there.predict_proba(QUERIES), here.predict_proba(QUERIES))
        there.save_pretrained(tmp_path / "model")
        again = FewShotClassifier.from_pretrained(tmp_path / "model", device=ELSEWHERE)
        assert again.learner_.encoder.device == ELSEWHERE
        close(again.predict_proba(QUERIES), there.predict_proba(QUERIES))
    on_the_cpu = FewShotClassifier.from_pretrained(tmp_path / "model", device="cpu")
    assert on_the_cpu.learner_.encoder.device.type == "cpu"
    close(on_the_cpu.predict_proba(QUERIES), here.predict_proba(QUERIES))


@pytest.mark.parametrize("name", ["auto", "maml", "mann", "snail"])
def test_no_tensor_is_made_on_the_default_device(name, folder, tmp_path):
    """The encoder is on the CPU and the default device holds no numbers."""
    expected, first = fitted(name, folder, "cpu", adapted=True)
    with torch.device("meta"):
        found, found_first = fitted(name, folder, "cpu", adapted=True)
        found.save_pretrained(tmp_path / "model", include_support=not hasattr(found.learner_, "order_matters"))
        again = FewShotClassifier.from_pretrained(tmp_path / "model", device="cpu")
        np.testing.assert_array_equal(found_first, first)
        np.testing.assert_array_equal(again.predict_proba(QUERIES), expected.predict_proba(QUERIES))


def test_what_auto_says_of_a_task_does_not_depend_on_the_device(folder):
    here, _ = fitted("auto", folder, "cpu", adapted=True)
    with another_device():
        there, _ = fitted("auto", folder, ELSEWHERE, adapted=True)
        close(there.out_of_scope(QUERIES), here.out_of_scope(QUERIES))
        assert there.predict(QUERIES, abstain=0.9) is not None
        said = there.task_report()
    assert said.held_out == here.task_report().held_out
    assert said.alike == here.task_report().alike


@pytest.mark.parametrize("name", ["logistic", "maml"])
def test_a_store_of_users_works_where_its_encoder_is_and_opens_elsewhere(name, folder, tmp_path):
    with another_device():
        learner = learners[name](loaded(folder, ELSEWHERE, adapted=name == "maml"))
        with AdapterStore(tmp_path / "users", learner) as store:
            store.adapt_many({"ann": (TEXTS, LABELS), "bob": (TEXTS[:6], LABELS[:6])})
            if name == "logistic":
                store.adapt("eve", TEXTS[:4], LABELS[:4], near="ann")
            there = store.predict_proba(["ann", "bob"], QUERIES[:2])
    with AdapterStore(tmp_path / "users", learners[name](loaded(folder, "cpu", adapted=name == "maml"))) as store:
        here = store.predict_proba(["ann", "bob"], QUERIES[:2])
    for one, other in zip(here, there, strict=True):
        close(one.probabilities, other.probabilities)


def test_a_stream_is_followed_from_a_classifier_elsewhere_and_loaded_on_the_cpu(folder, tmp_path):
    answers = []
    classifier, _ = fitted("prototypical", folder, "cpu", adapted=False)
    online = OnlineClassifier(classifier)
    tickets = [each.ticket for each in online.receive(QUERIES)]
    online.learn(tickets, ["sport", "food", "money", "sport"])
    answers.append(online.predict_proba(QUERIES))
    with another_device():
        classifier, _ = fitted("prototypical", folder, ELSEWHERE, adapted=False)
        online = OnlineClassifier(classifier)
        tickets = [each.ticket for each in online.receive(QUERIES)]
        online.learn(tickets, ["sport", "food", "money", "sport"])
        online.save(tmp_path / "stream")
        answers.append(online.predict_proba(QUERIES))
    answers.append(OnlineClassifier.load(tmp_path / "stream", device="cpu").predict_proba(QUERIES))
    close(answers[1], answers[0])
    close(answers[2], answers[0])


def test_an_adapter_is_drawn_alike_and_saved_from_any_device(folder, tmp_path):
    add_adapter(here := TextEncoder.from_pretrained(folder, device="cpu"), AdapterSettings(rank=2), seed=3)
    with another_device():
        add_adapter(there := TextEncoder.from_pretrained(folder, device=ELSEWHERE), AdapterSettings(rank=2), seed=3)
        for one, other in zip(adapter_weights(here).values(), adapter_weights(there).values(), strict=True):
            assert isinstance(other.data, Elsewhere)
            torch.testing.assert_close(one.data, other.data.cpu())
        save_adapter(there, tmp_path)


def test_a_tensor_on_the_cpu_is_refused_there():
    with another_device(), pytest.raises(RuntimeError, match="on the CPU"):
        torch.ones(2, device=ELSEWHERE) + torch.ones(2, device="cpu")


def test_a_tensor_without_a_device_is_refused_there():
    with another_device(), pytest.raises(RuntimeError, match="without a device"):
        torch.ones(2, device=ELSEWHERE) + torch.ones(2)
