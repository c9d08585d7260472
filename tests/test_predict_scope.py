"""``nlpmeta predict`` on texts that belong to none of the classes, and the clues behind it."""

import json

import pytest
import torch

from nlpmeta import FewShotClassifier
from nlpmeta.auto.mismatch import small_talk, small_talk_vectors
from nlpmeta.auto.mixture import likeness, usual_likeness
from nlpmeta.cli import main
from nlpmeta.cli.answering import NONE, Columns
from nlpmeta.learners.base import class_means


@pytest.fixture(scope="module")
def folder(encoder_folder, pool, tmp_path_factory):
    """A model of ``auto`` and one of another method, saved; labels are numbers."""
    place = tmp_path_factory.mktemp("models")
    for method in ("auto", "ridge"):
        model = FewShotClassifier(method, encoder=str(encoder_folder), checkpoint="none")
        model.fit(list(pool.texts[::3]), list(pool.labels[::3])).save_pretrained(place / method)
    return place


@pytest.fixture
def rows(folder, capsys):
    def call(method, *arguments):
        code = main(["predict", str(folder / method), *map(str, arguments), "-q", "--json"])
        out = capsys.readouterr().out
        return code, [json.loads(line) for line in out.splitlines()]

    return call


def test_the_score_is_a_column_and_decides_the_label_at_a_half(rows, folder):
    texts = ["ball goal", "rice soup", "hello there", "zzz"]
    expected = FewShotClassifier.from_pretrained(folder / "auto").out_of_scope(texts)
    found = rows("auto", "--out-of-scope", *texts)[1]
    assert [row["out_of_scope"] for row in found] == pytest.approx(expected.tolist(), abs=1e-5)
    assert [row["label"] == NONE for row in found] == [score >= 0.5 for score in expected]


def test_a_threshold_refuses_what_lies_below_it_and_nothing_else(rows):
    texts = ["ball goal", "rice loan", "team", "zzz"]
    assert {row["label"] for row in rows("auto", "--threshold", 1, *texts)[1]} == {NONE}
    assert NONE not in {row["label"] for row in rows("auto", "--threshold", 0, *texts)[1]}
    plain = rows("ridge", *texts)[1]
    middle = sorted(row["probability"] for row in plain)[2]
    found = rows("ridge", "--threshold", middle, *texts)[1]
    assert [row["label"] for row in found] == [row["label"] if row["probability"] >= middle else NONE for row in plain]
    assert "out_of_scope" not in found[0]


def test_what_a_method_or_another_option_has_no_use_for_is_refused(rows, capsys):
    assert rows("ridge", "--out-of-scope", "ball")[0] == 2
    assert rows("auto", "--out-of-scope", "--abstain", 0.9, "ball")[0] == 2
    assert rows("auto", "--threshold", 1.5, "ball")[0] == 2


def test_probability_and_scope_count_together():
    columns = Columns(threshold=0.5)
    assert not columns.refuses(0.9, 0.4)
    assert columns.refuses(0.9, 0.5)
    assert columns.refuses(0.4, None)
    assert Columns(out_of_scope=True).refuses(0.99, 0.5)
    assert not Columns(out_of_scope=True).refuses(0.01, 0.49)


def test_usual_likeness_is_that_of_each_example_to_the_others():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(9, 8, generator=generator), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    means = class_means(features, labels, 3)
    cosine, unit = torch.nn.functional.cosine_similarity, torch.nn.functional.normalize(means, dim=1)
    among = float((unit @ unit.T)[~torch.eye(3, dtype=torch.bool)].mean())
    each = []
    for row in range(9):
        own = (labels == labels[row]) & (torch.arange(9) != row)
        rest = means.clone()
        rest[labels[row]] = features[own].mean(0)
        each.append((float(cosine(features[row : row + 1], rest).max()) - among) / (1 - among))
    found = usual_likeness(features, labels, means, n_views=1)
    assert float(found) == pytest.approx(sorted(each)[4], abs=1e-5)
    assert usual_likeness(features[::3], labels[::3], means, n_views=1) is None
    torch.testing.assert_close(likeness(means, means, n_views=1), torch.ones(3))


def test_small_talk_is_read_once_and_none_of_it_twice(folder, monkeypatch):
    assert len(set(small_talk())) == len(small_talk()) > 100
    model = FewShotClassifier.from_pretrained(folder / "auto")
    first = small_talk_vectors(model.fitted_.predictor)
    monkeypatch.setattr(type(model.fitted_.predictor), "queries", None)
    assert small_talk_vectors(model.fitted_.predictor) is first
    assert first.shape == (len(small_talk()), model.learner_.encoder.dim)
