"""The comparison of engines with peers: its processes answer, absent peers are named, figures are medians."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import speed_accuracy
import speed_peers
import speed_side
from conftest import save_encoder

from nlpmeta import FewShotClassifier, TextEncoder
from nlpmeta.export.head import compile_model

TEXTS = ["ball goal", "rice soup", "team match", "bread"]


@pytest.mark.slow
def test_a_side_is_a_process_that_predicts_embeds_and_says_what_it_took(tmp_path, monkeypatch):
    monkeypatch.setenv("NLPMETA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "encoder").mkdir()
    save_encoder(tmp_path / "encoder")
    model = FewShotClassifier("logistic", encoder=TextEncoder.from_pretrained(str(tmp_path / "encoder"), max_length=32))
    model.fit(TEXTS, ["sport", "food", "sport", "food"]).save_pretrained(tmp_path / "logistic")
    model = FewShotClassifier.from_pretrained(tmp_path / "logistic")
    compile_model(model, "onnx", tmp_path / "logistic")
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    with speed_peers.Worker("nlpmeta onnx", None, tmp_path, threads=1) as worker:
        worker.ask(texts=str(tmp_path / "texts.json"))
        found = worker.ask(bulk=4, one=2, memory=True, embed=str(tmp_path / "e.npy"), predict=str(tmp_path / "p.npy"))
        again = speed_peers.measure([worker], rounds=2, bulk=4, one=2)
    assert len(found["one"]) == 2 and min(*found["bulk"], *found["one"][0]) > 0 and found["memory"] > 20
    np.testing.assert_allclose(np.load(tmp_path / "e.npy"), model.learner_.encoder.encode(TEXTS), atol=1e-5)
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), model.predict_proba(TEXTS), atol=1e-5)
    assert again["nlpmeta onnx"]["texts_per_second"] > 0 and again["nlpmeta onnx"]["mb_memory"] > 20
    assert speed_peers.disk("nlpmeta onnx", tmp_path) > 0


def test_figures_are_medians_and_the_first_round_only_warms_up():
    asked = []

    class Fixed:
        side = "one"

        def ask(self, **request):
            asked.append(request)
            seconds = [9.0, 1.0, 2.0, 4.0][len(asked) - 1]
            return {"bulk": [seconds, seconds / 2], "one": [[0.001 * seconds, 0.001]] * request["one"], "memory": 5.4}

    found = speed_peers.measure([Fixed()], rounds=3, bulk=8, one=10)["one"]
    assert [each["bulk"] for each in asked] == [4, 8, 8, 8]
    assert (found["texts_per_second"], found["texts_per_cpu_second"], found["mb_memory"]) == (4.0, 8.0, 5)
    assert (found["one_ms"], found["one_cpu_ms"], found["one_ms_99"]) == (2.0, 1.0, 4.0)


def test_absent_peers_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(speed_peers.NEEDS, "fastembed", ["json", "no_such_package"])
    assert speed_peers.missing("fastembed onnx", sys.executable) == "not installed: no_such_package"
    assert speed_peers.missing("fastembed onnx", None) == "no interpreter with peers was given"
    assert speed_peers.missing("nlpmeta onnx", None) == ""
    speed_peers.show({"peers": {"1": {"sides": {}, "absent": {"fastembed onnx": "not installed: no_such_package"}}}})
    assert "| fastembed onnx | not installed: no_such_package |" in capsys.readouterr().out


def test_a_peer_gets_the_prefix_and_the_head(tmp_path):
    np.savez(tmp_path / "head.npz", weight=np.array([[1.0, 0.0], [0.0, 1.0]]), bias=np.array([0.0, np.log(3)]))
    seen = []
    peer = speed_side.Peer(lambda texts: seen.extend(texts) or np.zeros((len(texts), 2)), tmp_path)
    np.testing.assert_allclose(peer.predict([" ball "]), [[0.25, 0.75]])
    assert seen == ["query: ball"]


def test_accuracy_is_the_mean_over_draws_of_each_set():
    rows = [{"side": "a", "set": "s", "auto": each} for each in (0.5, 1.0)] + [{"side": "a", "set": "t", "logistic": 1}]
    assert speed_accuracy.means(rows, "auto") == {"a": {"s": 75.0}}


def test_accuracy_counts_what_is_labelled_right():
    import torch

    episode = SimpleNamespace(query=SimpleNamespace(texts=("a", "b"), labels=(0, 1)))
    learner = SimpleNamespace(predictor=lambda state: SimpleNamespace(logits=lambda texts: texts.features))
    both_first = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert speed_accuracy.share(learner, {}, episode, lambda texts: both_first) == 0.5
