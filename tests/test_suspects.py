"""``suspects`` and ``nlpmeta data check --model``: labels that are probably wrong come first."""

import json

import numpy as np
import pytest
from conftest import write_table

from nlpmeta import FewShotClassifier
from nlpmeta.cli import main
from nlpmeta.errors import NLPMetaError


@pytest.fixture
def model(encoder_folder, pool):
    return FewShotClassifier(encoder=str(encoder_folder), checkpoint="none").fit(list(pool.texts), pool.names())


@pytest.fixture
def planted(pool):
    """The three topics with one label in twelve changed, and the rows of these."""
    names, rows = pool.names(), (3, 20, 25, 40)
    other = {"sport": "food", "food": "money", "money": "sport"}
    return [other[name] if row in rows else name for row, name in enumerate(names)], set(rows)


@pytest.mark.parametrize("method", ["auto", "ridge"])
def test_planted_errors_come_first(method, encoder_folder, pool, planted):
    names, rows = planted
    model = FewShotClassifier(method, encoder=str(encoder_folder), checkpoint="none").fit(list(pool.texts), names)
    found = model.suspects()
    assert sorted(each.row for each in found) == list(range(len(pool)))
    assert len({each.row for each in found[:4]} & rows) >= 3
    assert [each.probability for each in found] == sorted(each.probability for each in found)
    right = [each for each in found[:4] if each.row in rows]
    assert all(each.label == names[each.row] and each.rather == pool.names()[each.row] for each in right)


@pytest.mark.parametrize("method", ["auto", "logistic", "prototypical", "knn"])
def test_neither_answers_nor_suspects_depend_on_the_order_of_the_examples(method, encoder_folder, pool, planted):
    names, turned = planted[0], np.random.default_rng(2).permutation(len(pool)).tolist()
    one = FewShotClassifier(method, encoder=str(encoder_folder), checkpoint="none").fit(list(pool.texts), names)
    other = FewShotClassifier(one.learner_).fit([pool.texts[row] for row in turned], [names[row] for row in turned])
    np.testing.assert_allclose(other.predict_proba(pool.texts), one.predict_proba(pool.texts), atol=1e-5)
    found = {turned[each.row]: each.probability for each in other.suspects()}
    assert found == pytest.approx({each.row: each.probability for each in one.suspects()}, abs=1e-5)


def test_examples_that_are_given_need_not_be_those_of_the_model(model, pool, planted):
    names, _ = planted
    own = FewShotClassifier(model.learner_).fit(list(pool.texts), names)
    assert model.suspects(list(pool.texts), names) == own.suspects()
    assert {each.label for each in model.suspects(["ball", "goal", "rice", "soup"], [1, 1, 2, 2])} == {"1", "2"}


def test_weights_of_examples_count_when_others_are_held_out(encoder_folder, pool, planted):
    names, rows = planted
    wrong = []
    for doubt in (1.0, 0.01):
        weights = [doubt if row in rows else 1.0 for row in range(len(pool))]
        model = FewShotClassifier("ridge", encoder=str(encoder_folder), checkpoint="none")
        found = model.fit(list(pool.texts), names, sample_weight=weights).suspects()
        wrong.append(sum(each.probability for each in found if each.row in rows))
    assert wrong[1] != pytest.approx(wrong[0], rel=1e-3)


def test_a_class_with_one_text_comes_last_and_planted_errors_still_first(model, pool, planted):
    names, rows = planted
    found = model.suspects(["ball soup", *pool.texts], ["alone", *names])
    assert (found[-1].row, found[-1].label, found[-1].probability) == (0, "alone", None)
    assert len({each.row - 1 for each in found[:4]} & rows) >= 3
    assert all(
        each.label == (["alone", *names])[each.row] and each.text == ("ball soup", *pool.texts)[each.row]
        for each in found
    )


def test_an_example_that_cannot_be_held_out_comes_last_without_a_probability(model):
    found = model.suspects(["ball goal", "team goal", "goal match", "rice soup"], ["a", "a", "a", "b"])
    assert (found[-1].row, found[-1].probability, found[-1].rather) == (3, None, None)
    assert all(each.probability is not None for each in found[:-1])


def test_what_cannot_be_judged_is_refused(model, encoder_folder, pool):
    with pytest.raises(NLPMetaError, match="one distinct text"):
        model.suspects(["ball", "rice"], ["a", "b"])
    with pytest.raises(NLPMetaError, match="two classes"):
        model.suspects(["ball", "rice"], ["a", "a"])
    several = FewShotClassifier(encoder=str(encoder_folder), checkpoint="none")
    several.fit(list(pool.texts), [[name] for name in pool.names()], multilabel=True)
    with pytest.raises(NLPMetaError, match="several"):
        several.suspects(list(pool.texts), pool.names())


def test_the_command_names_lines(model, tmp_path, capsys, pool, planted):
    names, _ = planted
    model.save_pretrained(tmp_path / "model")  # its examples are not needed
    file, expected = write_table(tmp_path / "mine.csv", pool.texts, names), model.suspects(list(pool.texts), names)
    command = ["data", "check", str(file), "--model", str(tmp_path / "model")]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["suspects"]
    assert [each["line"] for each in found] == [each.row + 2 for each in expected]  # the first line is the header
    assert found[0]["probability"] == pytest.approx(expected[0].probability, abs=1e-6)
    assert main(command) == 0
    out = capsys.readouterr().out
    assert f"{expected[0].row + 2} " in out and "least probable labels of 48" in out
    assert "The 4 least probable" in out  # a tenth


def test_two_files_or_no_model_are_refused_by_the_command(model, tmp_path, capsys, table):
    model.save_pretrained(tmp_path / "model")
    assert main(["data", "check", str(table), str(table), "--model", str(tmp_path / "model")]) == 2
    assert "one file" in capsys.readouterr().err
    assert main(["data", "check", str(table), "--model", str(tmp_path / "nothing")]) == 2
    file = tmp_path / "several.csv"
    file.write_text("text,label\nball goal,sport;food\nrice soup,food\nteam,sport\n", encoding="utf-8")
    command = ["data", "check", str(file), "--label-separator", ";", "--model", str(tmp_path / "model")]
    assert main(command) == 2
    assert "several" in capsys.readouterr().err
