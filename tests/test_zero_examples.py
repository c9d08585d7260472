"""Classes without an example: known by their names and descriptions, alone or beside classes with examples."""

import io
import json
import sys

import numpy as np
import pytest
import torch
from conftest import write_table

from nlpmeta import FewShotClassifier
from nlpmeta.auto.method import AutoHead
from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.episodes.kshot import NamesAlone
from nlpmeta.errors import DataError, ModelFolderError, NLPMetaError
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.metrics.scores import score_episode
from nlpmeta.storage.manifest import write_manifest

TEXTS = ["ball goal", "goal match", "match team", "rice soup", "soup bread", "bread salt"]
LABELS = ["sport"] * 3 + ["food"] * 3
NAMES = ["sport", "food", "money"]


@pytest.fixture
def table(tmp_path):
    return write_table(tmp_path / "examples.csv", TEXTS, LABELS)


@pytest.fixture
def by_names(encoder_folder):
    def make(classes=NAMES, **options):
        return FewShotClassifier.from_names(classes, encoder=str(encoder_folder), **options)

    return make


def test_names_alone_are_the_prototypes(encoder):
    classifier = FewShotClassifier(PrototypicalNetwork(encoder, metric="cosine")).fit([], [], classes=NAMES)
    assert classifier.classes_.tolist() == sorted(NAMES)
    torch.testing.assert_close(classifier.state_["prototypes"], encoder.encode(sorted(NAMES)))
    nearest = (encoder.encode(TEXTS) @ encoder.encode(sorted(NAMES)).T).argmax(1).numpy()
    assert classifier.predict(TEXTS).tolist() == classifier.classes_[nearest].tolist()


def test_auto_takes_names_alone_to_the_same_head(by_names):
    auto, prototypical = by_names(), by_names(method="prototypical")
    assert auto.fitted_.predictor.choice == "prototypical" and len(auto.fitted_.predictor.heads) == 1
    assert auto.predict(TEXTS).tolist() == prototypical.predict(TEXTS).tolist()
    np.testing.assert_allclose(auto.predict_proba(TEXTS).sum(1), 1, rtol=1e-5)
    assert all(each.labels for each in auto.predict(TEXTS, abstain=0.9))
    assert ((0 <= auto.out_of_scope(TEXTS)) & (auto.out_of_scope(TEXTS) <= 1)).all()


def test_auto_believes_names_that_no_example_speaks_against(encoder):
    auto = AutoHead(encoder)
    alone = LabeledTexts((), (), ("sport", "food"), by_name=True)
    assert auto.known(auto.support(alone)).names is not None


def test_a_description_is_pooled_with_the_name_and_replaces_one_that_says_nothing(encoder, by_names):
    learner = PrototypicalNetwork(encoder, metric="cosine")
    said = {"sport": ["a ball game", "mchezo"]}
    found = FewShotClassifier(learner).fit([], [], classes=["sport", "food"], descriptions=said)
    words = encoder.encode(["sport", "a ball game", "mchezo", "food"])
    torch.testing.assert_close(found.state_["prototypes"], torch.stack([words[3], words[:3].mean(0)]))
    numbered = by_names([0, 1], descriptions={0: "food", 1: "sport"})
    np.testing.assert_allclose(
        numbered.predict_proba(TEXTS), by_names(["food", "sport"]).predict_proba(TEXTS), rtol=1e-4
    )


def test_classes_without_examples_stand_beside_classes_with_them(encoder):
    learner = PrototypicalNetwork(encoder, metric="cosine")
    classifier = FewShotClassifier(learner).fit(TEXTS, LABELS, classes=[*NAMES, "weather"])
    assert classifier.classes_.tolist() == ["food", "money", "sport", "weather"]
    with_examples = FewShotClassifier(learner).fit(TEXTS, LABELS).state_["prototypes"]
    name = encoder.encode(["money", "weather"])
    expected = torch.stack([with_examples[0], name[0], with_examples[1], name[1]])
    torch.testing.assert_close(classifier.state_["prototypes"], expected)
    weighed = FewShotClassifier(learner).fit(TEXTS, LABELS, [2.0] * 6, classes=[*NAMES, "weather"])
    torch.testing.assert_close(weighed.state_["prototypes"], expected)


@pytest.mark.parametrize("method", ["auto", "prototypical"])
def test_examples_that_come_later_make_what_fit_makes_of_them(by_names, encoder_folder, method):
    classifier = by_names(method=method)
    classifier.partial_fit(TEXTS[:1], LABELS[:1])
    assert classifier.fitted_.by_name.tolist() == ["food", "money"]
    classifier.partial_fit(TEXTS[1:], LABELS[1:]).partial_fit(["bank loan", "loan cash"], ["money", "money"])
    assert classifier.fitted_.by_name is None
    whole = FewShotClassifier(method, encoder=str(encoder_folder))
    whole.fit([*TEXTS, "bank loan", "loan cash"], [*LABELS, "money", "money"])
    if method == "prototypical":
        np.testing.assert_allclose(classifier.predict_proba(TEXTS), whole.predict_proba(TEXTS), rtol=1e-5)
    assert set(classifier.state_) >= {key for key in whole.state_ if not key.startswith("mixture")} or method == "auto"


def test_a_class_is_added_by_its_name_or_by_its_description(encoder):
    learner = PrototypicalNetwork(encoder, metric="cosine")
    classifier = FewShotClassifier(learner).fit(TEXTS, LABELS)
    classifier.add_class("money").add_class("x1", description="the weather")
    assert classifier.fitted_.by_name.tolist() == ["money", "x1"] and len(classifier.examples_.texts) == 6
    torch.testing.assert_close(classifier.state_["prototypes"][[1, 3]], encoder.encode(["money", "the weather"]))
    classifier.rename_class("money", "cash")
    torch.testing.assert_close(classifier.state_["prototypes"][0], encoder.encode(["cash"])[0])
    classifier.remove_class("cash").remove_class("sport")
    assert classifier.classes_.tolist() == ["food", "x1"] and classifier.fitted_.by_name.tolist() == ["x1"]
    with pytest.raises(DataError, match="There is a class 'food' already"):
        classifier.add_class("food")
    with pytest.raises(DataError, match="holds no texts"):
        classifier.add_class("news", [])
    with pytest.raises(DataError, match="The class 'q' has no example"):
        classifier.add_class("q")
    assert classifier.classes_.tolist() == ["food", "x1"]


@pytest.mark.parametrize("include_support", [True, False])
def test_names_alone_are_saved_and_learn_on_after_loading(by_names, tmp_path, run, include_support):
    classifier = by_names(descriptions={"money": "cash"})
    classifier.save_pretrained(tmp_path / "model", include_support=include_support)
    loaded = FewShotClassifier.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), classifier.predict_proba(TEXTS))
    assert loaded.fitted_.by_name.tolist() == sorted(NAMES)
    assert json.loads(run("info", tmp_path / "model", "--json")[1])["labels_without_example"] == sorted(NAMES)
    loaded.partial_fit(TEXTS, LABELS).save_pretrained(tmp_path / "more", include_support=True)
    more = FewShotClassifier.from_pretrained(tmp_path / "more")
    np.testing.assert_array_equal(more.predict_proba(TEXTS), loaded.predict_proba(TEXTS))
    assert more.fitted_.by_name.tolist() == ["money"] and more.descriptions_ == {"money": ("cash",)}


def test_a_model_with_examples_does_not_say_them_unless_asked(encoder_folder, tmp_path):
    some = FewShotClassifier("prototypical", encoder=str(encoder_folder)).fit(TEXTS, LABELS, classes=NAMES)
    some.save_pretrained(tmp_path / "model")
    loaded = FewShotClassifier.from_pretrained(tmp_path / "model")
    assert loaded.examples_ is None and loaded.fitted_.by_name.tolist() == ["money"]
    with pytest.raises(NLPMetaError, match="saved without its examples"):
        loaded.add_class("weather")


@pytest.mark.parametrize("wrong", [[True], ["yes", "no", "no"], {"food": True}, [False, False, False]])
def test_a_damaged_list_of_classes_without_examples_is_refused(by_names, tmp_path, wrong):
    by_names().save_pretrained(tmp_path / "model", include_support=True)
    path, manifest = tmp_path / "model" / "labels.json", tmp_path / "model" / "nlpmeta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "without_example": wrong}))
    facts = {
        key: each
        for key, each in json.loads(manifest.read_text()).items()
        if key not in ("files", "format_version", "nlpmeta")
    }
    manifest.unlink()
    write_manifest(tmp_path / "model", facts)
    with pytest.raises(ModelFolderError, match="Save the model again"):
        FewShotClassifier.from_pretrained(tmp_path / "model")


BAD = {
    "one letter": (["a", "food"], "The class 'a' has no example, and its name says nothing"),
    "numbers": ([0, 1], "The class '0' has no example.*descriptions, or --descriptions"),
    "labels": (["LABEL_0", "LABEL_1"], "The class 'LABEL_0' has no example"),
    "alike in words": (["play_music", "Play Music"], "has no example, and its name says nothing"),
    "empty": (["food", " "], "it holds ' '"),
    "missing": (["food", None], "it holds None"),
    "none": ([], "it is empty"),
    "twice": (["food", "food"], "holds 'food' twice"),
    "two spellings": (["fast food", "fast  food"], "differ only in white space"),
    "one": (["food"], "at least two classes"),
    "one string": ("food,sport", "not one string"),
    "mixed kinds": (["food", 3], "3"),
}


@pytest.mark.parametrize("kind", BAD)
def test_names_that_cannot_be_used_are_refused(by_names, kind):
    classes, message = BAD[kind]
    with pytest.raises(DataError, match=message):
        by_names(classes)


@pytest.mark.parametrize(
    ("texts", "labels", "classes", "message"),
    [
        (TEXTS, LABELS, ["food", "money"], "y holds the label 'sport', which is none of the classes"),
        ([], LABELS, NAMES, "X holds no texts"),
        (TEXTS, [], NAMES, "y holds no labels"),
        ([], [], None, "X holds no texts"),
        (TEXTS, LABELS, [*NAMES, "7"], "The class '7' has no example"),
    ],
)
def test_classes_that_do_not_go_with_the_examples_are_refused(encoder_folder, texts, labels, classes, message):
    with pytest.raises(DataError, match=message):
        FewShotClassifier(encoder=str(encoder_folder)).fit(texts, labels, classes=classes)


@pytest.mark.parametrize("method", ["logistic", "ridge", "knn", "maml"])
def test_a_method_that_needs_examples_says_which_does_not(encoder, method):
    with pytest.raises(NLPMetaError, match=f"{method} needs an example of each class.*: auto, prototypical"):
        FewShotClassifier(method, encoder=encoder).fit(TEXTS, LABELS, classes=NAMES)


def test_an_episode_without_examples_is_scored_like_any_other(encoder):
    pool = LabeledTexts.from_names(TEXTS, LABELS)
    episode = NamesAlone(pool).episode(3)
    assert episode.support.texts == () and episode.query == pool
    learner = PrototypicalNetwork(encoder, metric="cosine").eval()
    ours = score_episode(learner, episode, encoder.encode).probabilities
    fitted = FewShotClassifier(learner).fit([], [], classes=["food", "sport"])
    np.testing.assert_allclose(ours.numpy(), fitted.predict_proba(TEXTS), rtol=1e-4)
    with pytest.raises(DataError, match="at least two classes"):
        NamesAlone(pool.with_classes(["food"]))
    with pytest.raises(DataError, match="No support text"):
        Episode(pool.select([0]), pool.select([1]))


def test_the_report_says_that_nothing_was_measured(by_names, tmp_path):
    report = by_names().task_report()
    assert report.expected is None and "No forecast: all classes have no example" in "".join(report.lines())
    assert report.json()["expected_accuracy"]["mean"] is None and report.json()["classes_by_name"] == 3
    some = by_names().partial_fit(TEXTS, LABELS).task_report()
    assert "1 of 3 classes have no example" in "".join(some.lines())


def test_the_card_says_that_nothing_was_measured(by_names, tmp_path):
    from nlpmeta.sharing.card import card
    from nlpmeta.sharing.gather import gather

    by_names().save_pretrained(tmp_path / "model")
    assert "Nothing was measured" in str(card(gather(tmp_path / "model"), "user/name"))


def test_adapt_without_shots_scores_the_names_on_all_of_the_data(run, table, tmp_path):
    code, out, err = run("adapt", "--data", table, "--shots", "0", "--out", tmp_path / "model")
    assert code == 0, err
    assert "2 classes, 0 support texts, scored on all of the data" in out
    assert "nearest name" in out and "(the model of the names alone)" in out and "No forecast" in out
    report = json.loads((tmp_path / "model" / "report.json").read_text())
    assert report["n_shot"] == 0 and report["n_query"] == 6 and report["n_support"] == 0
    loaded = FewShotClassifier.from_pretrained(tmp_path / "model")
    right = np.mean(loaded.predict(TEXTS) == np.asarray(LABELS))
    assert report["accuracy"]["mean"] == pytest.approx(right)
    code, out, _ = run("teach", tmp_path / "model", "ball team", "--label", "sport")
    assert code == 0 and "Learned 1 example" in out


def test_adapt_without_shots_takes_a_test_file_and_descriptions(run, table, tmp_path):
    data, said = tmp_path / "numbers.csv", tmp_path / "said.csv"
    data.write_text(table.read_text().replace("sport", "1").replace("food", "0"))
    code, _, err = run("adapt", "--data", data, "--shots", "0", "--out", tmp_path / "model")
    assert code == 2 and "The class '0' has no example, and its name says nothing" in err
    said.write_text("label,text\n0,food\n1,sport\n")
    test = tmp_path / "test.csv"
    test.write_text("text,label\nball soup,0\nteam goal,1\nwhat,2\n")
    given = ("--shots", "0", "--descriptions", said, "--test-data", test, "--out", tmp_path / "model", "--json")
    code, out, err = run("adapt", "--data", data, *given)
    assert code == 0, err
    assert json.loads(out)["n_query"] == 2 and json.loads(out)["left_out"] == {"2": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "ridge"], "ridge needs an example of each class"),
        (["--shots", "-2"], "--shots takes a whole number from 0"),
    ],
)
def test_adapt_without_shots_refuses_what_needs_examples(run, table, tmp_path, options, message):
    code, _, err = run("adapt", "--data", table, "--shots", "0", *options, "--out", tmp_path / "model")
    assert code == 2 and message in err and not (tmp_path / "model").exists()


def test_classify_prints_what_predict_prints(run, by_names, tmp_path):
    by_names().save_pretrained(tmp_path / "model")
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS))
    for options in ([], ["--json"], ["--top", "2"], ["--json", "--top", "3"]):
        _, predicted, _ = run("predict", tmp_path / "model", "--file", texts, *options)
        code, out, _ = run("classify", "--labels", "sport, food,money", "--file", texts, *options)
        assert code == 0 and out == predicted
    _, out, _ = run("classify", "--labels", "sport,food,money", *TEXTS)
    assert out == run("predict", tmp_path / "model", *TEXTS)[1]


def test_classify_reads_standard_input_and_writes_tables(run, table, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ball goal\n\nrice soup\n")))
    code, out, _ = run("classify", "--labels", "sport,food")
    assert code == 0 and len(out.splitlines()) == 3
    code, *_ = run("classify", "--labels", "sport,food", "--file", table, "--out", tmp_path / "out.csv", "-q")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert code == 0 and len(lines) == 7 and "predicted_label" in lines[0]


def test_classify_takes_its_labels_from_descriptions(run, tmp_path):
    said = tmp_path / "said.csv"
    said.write_text("label,text\n0,food\n1,sport\n")
    code, out, _ = run("classify", "--descriptions", said, "--json", *TEXTS)
    named = run("classify", "--labels", "food,sport", "--json", *TEXTS)[1]
    labels = {"food": "0", "sport": "1"}
    assert code == 0
    assert [json.loads(line)["label"] for line in out.splitlines()] == [
        labels[json.loads(line)["label"]] for line in named.splitlines()
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Name the labels"),
        (["--labels", "food"], "at least two labels"),
        (["--labels", "food,,sport"], "an empty label"),
        (["--labels", ""], "an empty label"),
        (["--labels", "food,food"], "holds 'food' twice"),
        (["--labels", "fast food,fast  food"], "differ only in white space"),
        (["--labels", "0,1"], "The class '0' has no example"),
        (["--labels", "food,sport", "--method", "ridge"], "ridge needs an example of each class"),
        (["--labels", "food,sport", "--descriptions", "SAID"], "line 3: There is no class named 'money'"),
        (["--descriptions", "no.csv"], "no.csv does not exist"),
        (["--labels", "food,sport", "--file", "no.txt"], "no.txt is not a file"),
    ],
)
def test_classify_refuses_what_it_cannot_use(run, tmp_path, options, message):
    said = tmp_path / "said.csv"
    said.write_text("label,text\nfood,a meal\nmoney,cash\n")
    options = [str(said) if each == "SAID" else each for each in options]
    code, out, err = run("classify", *options, *([] if "--file" in options else ["rice soup"]))
    assert code == 2 and message in err and not out


def test_evaluate_without_shots_scores_the_names_alone(run, table, tmp_path):
    given = ("evaluate", "auto,prototypical", "--data", table, "--json", "--quiet")
    code, out, err = run(*given, "--shots", "0,1")
    assert code == 0, err
    rows = json.loads(out)["rows"]
    assert [(row["n_shot"], row["episodes"], row["n_query"]) for row in rows][:2] == [(0, 1, 6)] * 2
    assert [(row["n_shot"], row["episodes"]) for row in rows][2:] == [(1, 5)] * 2
    assert rows[0]["accuracy"]["ci95"] is None
    run("adapt", "--data", table, "--shots", "0", "--out", tmp_path / "model")
    measured = json.loads((tmp_path / "model" / "report.json").read_text())["accuracy"]["mean"]
    assert [row["accuracy"]["mean"] for row in rows[:2]] == pytest.approx([measured] * 2)
    assert json.loads(run(*given, "--shots", "0", "--max-query", "4")[1])["rows"][0]["n_query"] == 4
    shown = run("evaluate", "prototypical", "--data", table, "--shots", "0,1")[1]
    assert "kshot-all, 5 episodes" in shown and "±" in shown


def test_evaluate_without_shots_reads_descriptions_and_a_test_file(run, tmp_path):
    data, test, said = tmp_path / "data.csv", tmp_path / "test.csv", tmp_path / "said.csv"
    write_table(data, TEXTS, ["1"] * 3 + ["0"] * 3)
    test.write_text("text,label\nball soup,0\nteam goal,1\nwhat,2\n")
    said.write_text("label,text\n0,food\n1,sport\n")
    given = ("evaluate", "auto", "--data", data, "--shots", "0")
    code, _, err = run(*given)
    assert code == 2 and "The class '0' has no example, and its name says nothing" in err
    code, out, err = run(*given, "--descriptions", said, "--test-data", test, "--json")
    assert code == 0 and "1 query texts of classes without support are left out" in err
    assert json.loads(out)["rows"][0]["n_query"] == 2


@pytest.mark.parametrize(
    ("methods", "options", "message"),
    [
        ("auto,ridge", [], "ridge needs examples of each class, and there are none with --shots 0"),
        ("logistic,knn", [], "logistic, knn need examples of each class"),
        ("auto", ["--protocol", "n-way"], "n-way takes examples of each class"),
        ("auto", ["--ways", "2"], "n-way takes examples of each class"),
        ("auto", ["--protocol", "mteb-8shot"], "leave --shots and --ways out"),
        ("auto", ["--shots", "-1"], "--shots takes whole numbers from 0"),
    ],
)
def test_evaluate_without_shots_refuses_what_needs_examples(run, table, methods, options, message):
    code, out, err = run("evaluate", methods, "--data", table, "--shots", "0", *options)
    assert code == 2 and message in err and not out
