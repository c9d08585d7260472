"""Descriptions of classes: read like names, kept with the model, and refused where they would be ignored."""

import json

import numpy as np
import pytest
import torch
from conftest import write_table

from nlpmeta import FewShotClassifier
from nlpmeta.data import LabeledTexts, class_words, wordless
from nlpmeta.errors import DataError, ModelFolderError, NLPMetaError
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.sources.loading import Descriptions

TEXTS = ["ball goal", "goal match", "match team", "rice soup", "soup bread", "bread salt"]
LABELS = ["sport"] * 3 + ["food"] * 3
SAID = {"sport": "a ball game", "food": ["what we eat", "chakula"]}


@pytest.fixture
def fitted(encoder_folder):
    return FewShotClassifier("auto", encoder=str(encoder_folder)).fit(TEXTS, LABELS, descriptions=SAID)


@pytest.fixture
def table(tmp_path):
    return write_table(tmp_path / "examples.csv", TEXTS, LABELS)


def written(folder, content, name="said.csv"):
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


def test_words_of_a_class_are_its_name_and_its_descriptions():
    assert class_words(["play_music", "b"], [("a song",), ("a call",)]) == (("play music", "a song"), ("a call",))
    assert class_words(["0", "1"], [("bad",), ("good", "nzuri")]) == (("bad",), ("good", "nzuri"))
    assert class_words(["play_music", "news"], [(), ()]) == class_words(["play_music", "news"])
    assert class_words(["0", "news"], [(), ("headlines",)]) is None
    assert wordless(["0", "news"], [(), ("headlines",)]) == ("0",)


def test_several_texts_of_a_class_are_pooled_by_their_mean(encoder):
    data = LabeledTexts(("x", "y"), (0, 1), ("sport", "food"), descriptions=(("a ball game",), ()))
    found = PrototypicalNetwork(encoder, names=True).names(data, encoder.encode)
    name, game, food = encoder.encode(["sport", "a ball game", "food"])
    torch.testing.assert_close(found.features, torch.stack([(name + game) / 2, food]))
    lazily = PrototypicalNetwork(encoder.eval(), names=True).names(data)
    torch.testing.assert_close(lazily.features.detach(), found.features)


def test_descriptions_stand_in_place_of_labels_that_say_nothing(encoder_folder):
    method = FewShotClassifier("auto", encoder=str(encoder_folder))
    labels = [int(label == "sport") for label in LABELS]
    numbered = method.fit(TEXTS, labels, descriptions={1: "sport", "0": "food"}).predict_proba(TEXTS)
    named = method.fit(TEXTS, LABELS).predict_proba(TEXTS)
    np.testing.assert_allclose(numbered, named, atol=1e-5)


def test_they_change_what_is_predicted_and_none_changes_nothing(fitted, encoder_folder):
    plain = FewShotClassifier("auto", encoder=str(encoder_folder)).fit(TEXTS, LABELS)
    empty = FewShotClassifier("auto", encoder=str(encoder_folder)).fit(TEXTS, LABELS, descriptions={})
    np.testing.assert_array_equal(plain.predict_proba(TEXTS), empty.predict_proba(TEXTS))
    assert abs(plain.predict_proba(TEXTS) - fitted.predict_proba(TEXTS)).max() > 1e-5
    assert fitted.descriptions_ == {"sport": ("a ball game",), "food": ("what we eat", "chakula")}
    assert plain.descriptions_ == {}


@pytest.mark.parametrize("include_support", [True, False])
def test_a_saved_model_keeps_them(fitted, tmp_path, run, include_support):
    fitted.save_pretrained(tmp_path / "model", include_support=include_support)
    loaded = FewShotClassifier.from_pretrained(tmp_path / "model")
    assert loaded.descriptions_ == fitted.descriptions_
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), fitted.predict_proba(TEXTS))
    _, out, _ = run("info", tmp_path / "model", "--json")
    assert json.loads(out)["descriptions"] == {"food": ["what we eat", "chakula"], "sport": ["a ball game"]}
    _, out, _ = run("info", tmp_path / "model")
    assert "what we eat | chakula" in " ".join(out.split())
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "labels.json").read_bytes() == (tmp_path / "model" / "labels.json").read_bytes()


def test_they_go_with_their_classes_when_these_change(fitted, encoder_folder):
    fitted.partial_fit(["salt rice"], ["food"])
    assert fitted.descriptions_["food"] == ("what we eat", "chakula")
    fitted.add_class("money", ["bank loan", "loan cash"], description="what we pay with")
    fitted.rename_class("sport", "games")
    fitted.describe({"food": "a meal"})
    assert fitted.descriptions_ == {"games": ("a ball game",), "food": ("a meal",), "money": ("what we pay with",)}
    fitted.remove_class("food")
    assert fitted.descriptions_ == {"games": ("a ball game",), "money": ("what we pay with",)}
    texts, labels = TEXTS[:3] + ["bank loan", "loan cash"], ["games"] * 3 + ["money"] * 2
    other = FewShotClassifier("auto", encoder=str(encoder_folder)).fit(texts, labels, descriptions=fitted.descriptions_)
    prototypes = "prototypical/prototypes"
    torch.testing.assert_close(fitted.state_.get(prototypes), other.state_.get(prototypes))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"sprot": "x"}, "no class named 'sprot'. Did you mean 'sport'"),
        ({"sport": ""}, "description of 'sport' is empty"),
        ({"sport": ["a", " "]}, "description of 'sport' is empty"),
        ({"sport": []}, "must be a text or a list of texts"),
        ({"sport": None}, "must be text; it is None"),
        ({"sport": float("nan")}, "must be text; it is nan"),
        ({"sport": 3}, "must be a text or a list"),
        ({"sport": ["a", 3]}, r"must be text; it is 3 \(int\)"),
        ({"sport": "\ud800"}, "a lone surrogate"),
        ({"sport": "a", "sport ": "b"}, "one class in two spellings"),
        ([("sport", "x")], "must map a label"),
        ("a ball game", "must map a label"),
    ],
)
def test_a_bad_description_is_refused(encoder_folder, said, message):
    with pytest.raises(DataError, match=message):
        FewShotClassifier("auto", encoder=str(encoder_folder)).fit(TEXTS, LABELS, descriptions=said)


def test_a_class_of_which_nothing_is_said_keeps_the_others_from_being_read(encoder_folder):
    labels = [0, 0, 0, 1, 1, 1]
    with pytest.raises(DataError, match="The label '1' says nothing about its class and has no description"):
        FewShotClassifier("auto", encoder=str(encoder_folder)).fit(TEXTS, labels, descriptions={0: "a ball game"})


@pytest.mark.parametrize("method", ["ridge", "knn", "rnn"])
def test_a_method_that_reads_no_names_refuses_them(encoder, method):
    classifier = FewShotClassifier(method, encoder=encoder)
    with pytest.raises(NLPMetaError, match=f"{method} does not read the names of classes here.*auto does"):
        classifier.partial_fit(TEXTS, LABELS, descriptions=SAID)


def test_a_damaged_list_of_descriptions_is_named(fitted, tmp_path):
    from nlpmeta.storage.manifest import read_manifest, write_manifest

    fitted.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "labels.json"
    for wrong in ([["a"]], {"food": "a"}, ["a", "b"], [[1], []], [[""], []]):
        facts = json.loads(path.read_text())
        path.write_text(json.dumps({**facts, "descriptions": wrong}))
        manifest = json.loads((tmp_path / "model" / "nlpmeta.json").read_text())
        kept = {key: manifest[key] for key in manifest if key not in ("files", "format_version", "nlpmeta")}
        (tmp_path / "model" / "nlpmeta.json").unlink()
        write_manifest(tmp_path / "model", kept)
        read_manifest(tmp_path / "model")
        with pytest.raises(ModelFolderError, match=r"labels\.json is damaged"):
            FewShotClassifier.from_pretrained(tmp_path / "model")


FILES = {
    "rows of a label": ("said.csv", "label,text\nsport,a ball game\nfood,what we eat\nfood,chakula\n"),
    "tabs": ("said.tsv", "label\tdescription\nsport\ta ball game\nfood\twhat we eat\nfood\tchakula\n"),
    "objects": (
        "said.jsonl",
        "\n".join(
            json.dumps({"label": label, "text": text})
            for label, text in (("sport", "a ball game"), ("food", "what we eat"), ("food", "chakula"))
        ),
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_says_what_a_mapping_says(tmp_path, kind):
    name, content = FILES[kind]
    said = Descriptions.of_file(written(tmp_path, content, name))
    assert said.of(np.asarray(["food", "sport"])) == {"sport": ("a ball game",), "food": ("what we eat", "chakula")}


def test_adapt_reads_and_keeps_them(run, table, tmp_path):
    said = written(tmp_path, FILES["rows of a label"][1])
    given = ("--data", table, "--shots", "2", "--draws", 2, "--checkpoint", "none", "--descriptions", said)
    code, out, _ = run("adapt", *given, "--out", tmp_path / "model", "--include-support", "--json")
    assert code == 0 and json.loads(out)["task"]["descriptions"].startswith(str(said))
    loaded = FewShotClassifier.from_pretrained(tmp_path / "model")
    assert loaded.descriptions_ == {"food": ("what we eat", "chakula"), "sport": ("a ball game",)}
    code, out, _ = run("teach", tmp_path / "model", "--descriptions", written(tmp_path, "label,text\nfood,a meal\n"))
    assert code == 0 and "Described: food" in out
    code, *_ = run("teach", tmp_path / "model", "bank loan", "--label", "money", "--descriptions",
                   written(tmp_path, "label,text\nmoney,what we pay with\n"))  # fmt: skip
    loaded = FewShotClassifier.from_pretrained(tmp_path / "model")
    assert loaded.descriptions_["food"] == ("a meal",) and loaded.descriptions_["money"] == ("what we pay with",)


def test_a_column_of_descriptions_in_the_data_is_left_alone(run, tmp_path):
    rows = [f"{text},{label},words of {label}" for text, label in zip(TEXTS, LABELS, strict=True)]
    data = written(tmp_path, "\n".join(["text,label,description", *rows]), "data.csv")
    given = (
        "--data",
        data,
        "--shots",
        "2",
        "--draws",
        1,
        "--checkpoint",
        "none",
        "--out",
        tmp_path / "model",
        "--json",
    )
    code, out, _ = run("adapt", *given)
    assert code == 0 and "descriptions" not in json.loads(out)["task"]
    assert FewShotClassifier.from_pretrained(tmp_path / "model").descriptions_ == {}


def test_evaluate_names_the_methods_that_ignore_them(run, table, tmp_path):
    said = written(tmp_path, FILES["rows of a label"][1])
    given = ("--data", table, "--shots", "1", "--episodes", "2", "--descriptions", said)
    code, out, err = run("evaluate", "ridge,auto", *given, "--json")
    assert code == 0 and "ridge cannot use --descriptions" in err
    assert all(row["descriptions"].startswith(str(said)) for row in json.loads(out)["rows"])
    code, _, err = run("evaluate", "ridge", *given)
    assert code == 2 and "ridge does not read the names of classes" in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("label,text\nsport,a\nfod,b\n", "line 3: There is no class named 'fod'. Did you mean 'food'"),
        ("label,text\nsport,a\nfood,\n", "line 3: the description of 'food' is empty"),
        ("label,text\nsport,a\n,b\n", "line 3: a description has no label"),
        ("label,text\n", "no "),
        ("name,words\nsport,a\n", "has the columns name, words; descriptions need a column label and a column text"),
        ("label,text\nsport,a\nspórt,b\n", "line 3: There is no class named"),
        ("label,text\nfood,a\nfo\u200aod,b\n", "line 3"),
    ],
)
@pytest.mark.parametrize("command", ["adapt", "evaluate", "teach"])
def test_a_bad_file_is_refused_with_its_line(run, table, tmp_path, fitted, command, content, message):
    said = written(tmp_path, content)
    if command == "teach":
        fitted.save_pretrained(tmp_path / "model", include_support=True)
        given = [tmp_path / "model"]
    else:
        given = ["--data", table, "--shots", "1", "--out", tmp_path / "out"]
        given = ["auto", *given] if command == "evaluate" else given
    code, _, err = run(command, *given, "--descriptions", said)
    assert code == 2 and message in err and str(said) in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["adapt", "evaluate", "teach"])
def test_two_spellings_of_a_label_in_a_file_are_refused(run, table, tmp_path, fitted, command):
    data = written(tmp_path, table.read_text().replace("food", "cold food"), "spaced.csv")
    said = written(tmp_path, "label,text\ncold food,a\ncold  food,b\n")
    if command == "teach":
        fitted.rename_class("food", "cold food").save_pretrained(tmp_path / "model", include_support=True)
        given = [tmp_path / "model"]
    else:
        given = [*(["auto"] if command == "evaluate" else []), "--data", data, "--shots", "1"]
        given += ["--out", tmp_path / "out"]
    code, _, err = run(command, *given, "--descriptions", said)
    assert code == 2 and "one class in two spellings" in err and "line 3" in err


def test_a_missing_file_is_named(run, table, tmp_path):
    code, _, err = run("adapt", "--data", table, "--descriptions", tmp_path / "no.csv")
    assert code == 2 and "no.csv does not exist" in err


def test_a_learner_that_weighs_names_weighs_descriptions_with_them(encoder):
    data = LabeledTexts(("x", "y"), (0, 1), ("0", "1"), descriptions=(("sport",), ("food",)))
    named = LabeledTexts(("x", "y"), (0, 1), ("sport", "food"))
    head = LogisticHead(encoder.eval(), name_weight=2.0)
    one, other = (head.adapt(head.support(each, encoder.encode)) for each in (data, named))
    torch.testing.assert_close(one["weight"], other["weight"])
