import json

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from nlpmeta import FewShotClassifier
from nlpmeta.errors import DataError, DataWarning, ModelFolderError, NLPMetaError, UnknownNameError


@pytest.fixture
def texts(pool):
    return list(pool.texts)


@pytest.fixture
def names(pool):
    return pool.names()


@pytest.fixture
def fitted(encoder_folder, texts, names):
    return FewShotClassifier("prototypical", encoder=str(encoder_folder)).fit(texts, names)


def test_probabilities_sum_to_one_and_their_columns_follow_the_classes(fitted, texts):
    probabilities = fitted.predict_proba(texts)
    assert fitted.classes_.tolist() == ["food", "money", "sport"]
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    assert (fitted.classes_[probabilities.argmax(1)] == fitted.predict(texts)).all()


@pytest.mark.parametrize("labels", [[0, 2], [-1, 7], [True, False], ["b", "a"], [1.0, 2.0]])
def test_labels_of_any_kind_come_back_as_they_were_given(labels, encoder_folder, tmp_path, texts, names):
    y = [labels[name == "food"] for name in names]
    classifier = FewShotClassifier("prototypical", encoder=str(encoder_folder)).fit(texts, y)
    classifier.save_pretrained(tmp_path / "model")
    for each in (classifier, FewShotClassifier.from_pretrained(tmp_path / "model")):
        predicted = each.predict(texts)
        assert set(predicted.tolist()) <= set(labels)
        assert predicted.dtype == np.asarray(labels).dtype
        assert each.score(texts, y) > 0.9


def test_a_clone_has_the_same_parameters_and_shares_the_frozen_encoder(encoder, texts, names):
    classifier = FewShotClassifier("ridge", encoder=encoder)
    copy = clone(classifier)
    assert (
        copy.get_params()
        == classifier.get_params()
        == {
            "method": "ridge",
            "encoder": encoder,
            "checkpoint": "default",
            "max_length": None,
            "device": "auto",
            "engine": "torch",
            "budget": 0.0,
        }
    )
    assert copy.encoder is encoder
    assert copy.set_params(method="knn").fit(texts, names).score(texts, names) > 0.9


def test_works_in_a_pipeline_and_in_cross_validation(encoder, texts, names):
    shout = FunctionTransformer(lambda rows: [row.lower() for row in rows])
    pipeline = make_pipeline(shout, FewShotClassifier("prototypical", encoder=encoder))
    assert cross_val_score(pipeline, np.asarray(texts, dtype=object), names, cv=3).mean() > 0.8


@pytest.mark.parametrize("method", ["auto", "prototypical", "ridge", "logistic", "knn"])
def test_saved_and_loaded_it_predicts_the_same_to_the_last_bit(method, encoder_folder, tmp_path, texts, names):
    classifier = FewShotClassifier(method, encoder=str(encoder_folder)).fit(texts[::2], names[::2])
    classifier.save_pretrained(tmp_path / "model", report={"accuracy": 0.5})
    loaded = FewShotClassifier.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(texts), classifier.predict_proba(texts))
    assert json.loads((tmp_path / "model" / "report.json").read_text()) == {"accuracy": 0.5}


def test_two_fits_with_the_same_examples_agree_to_the_last_bit(encoder_folder, texts, names):
    one, two = (FewShotClassifier("auto", encoder=str(encoder_folder)).fit(texts, names) for _ in range(2))
    np.testing.assert_array_equal(one.predict_proba(texts), two.predict_proba(texts))


def test_one_and_two_threads_agree(encoder_folder, texts, names):
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            classifier = FewShotClassifier("prototypical", encoder=str(encoder_folder)).fit(texts, names)
            results.append(classifier.predict_proba(texts))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(results[0], results[1], atol=1e-5)


def test_a_saved_model_holds_no_pickle_and_not_the_encoder(fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "model")
    files = {file.name: file.stat().st_size for file in (tmp_path / "model").iterdir()}
    assert set(files) == {"README.md", "nlpmeta.json", "learner.safetensors", "task.safetensors", "labels.json"}
    assert sum(files.values()) < 10_000


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        ("one text", ["a"], "sequence of texts, not one string"),
        (["a", 3], ["x", "y"], r"row 1 is 3 \(int\)"),
        (["a", " "], ["x", "y"], "row 1 is empty"),
        (["a", "b"], ["x"], "X has 2 texts but y has 1 labels"),
        (["a", "b"], ["x", "x"], "at least two classes; y has one: 'x'"),
        ([], [], "X holds no texts"),
        (["a", "b"], [[1], [2]], r"its shape is \(2, 1\)"),
        (["a", "b"], [1.0, float("nan")], "not a number"),
        (["a", "b"], [0.5, 1.5], "continuous"),
    ],
)
def test_bad_input_is_refused_before_anything_is_loaded(x, y, said):
    with pytest.raises(DataError, match=said):
        FewShotClassifier("prototypical", encoder="no/such").fit(x, y)


def test_an_unknown_method_lists_the_known_ones(texts, names):
    with pytest.raises(UnknownNameError, match="no method named 'prototypic'. Did you mean 'prototypical'"):
        FewShotClassifier("prototypic").fit(texts, names)


def test_an_encoder_built_in_memory_says_how_to_make_it_savable(encoder, texts, names, tmp_path):
    classifier = FewShotClassifier("prototypical", encoder=encoder).fit(texts, names)
    with pytest.raises(NLPMetaError, match="built in memory.*save_pretrained"):
        classifier.save_pretrained(tmp_path / "model")
    assert not any(tmp_path.iterdir())


def test_an_existing_folder_is_kept_unless_told_otherwise(fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "model")
    before = (tmp_path / "model" / "nlpmeta.json").stat().st_mtime_ns
    with pytest.raises(NLPMetaError, match="exists and was kept"):
        fitted.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "nlpmeta.json").stat().st_mtime_ns == before
    fitted.save_pretrained(tmp_path / "model", overwrite=True)


@pytest.mark.parametrize("name", ["task.safetensors", "learner.safetensors", "labels.json"])
def test_a_damaged_or_missing_file_is_named(name, fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / name
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ModelFolderError, match=f"{name} is damaged"):
        FewShotClassifier.from_pretrained(tmp_path / "model")
    path.unlink()
    with pytest.raises(ModelFolderError, match=f"incomplete: {name} is missing"):
        FewShotClassifier.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(format_version=99), "format version 99; this release reads up to 1"),
        (lambda m: m.update(kind="other"), "holds no adapted model"),
        (lambda m: m.pop("files"), "is damaged"),
        (lambda m: m["learner"].update(name="nonsense"), "no method named 'nonsense'"),
        (lambda m: m["learner"].update(options={"bogus": 1}), "does not describe a learner of this release"),
        (lambda m: m["files"].update({"../../etc/passwd": "0"}), "leads out of"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(change, said, fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "nlpmeta.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(NLPMetaError, match=said):
        FewShotClassifier.from_pretrained(tmp_path / "model")


def test_a_folder_that_is_no_model_is_told_from_one_that_is_not_there(tmp_path):
    with pytest.raises(NLPMetaError, match="There is no model folder"):
        FewShotClassifier.from_pretrained(tmp_path / "none")
    with pytest.raises(ModelFolderError, match="it has no nlpmeta.json"):
        FewShotClassifier.from_pretrained(tmp_path)


def test_other_weights_under_the_same_name_are_noticed(fitted, tmp_path, texts):
    fitted.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "nlpmeta.json"
    manifest = json.loads(path.read_text())
    manifest["encoder"]["digest"] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.warns(DataWarning, match="adapted on other weights"):
        FewShotClassifier.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("wrong", ["a", 1.5])
def test_a_max_length_that_is_no_integer_is_named(wrong, pool):
    with pytest.raises(NLPMetaError, match=f"max_length .* an integer; got {wrong!r}"):
        FewShotClassifier(max_length=wrong).fit(pool.texts, pool.names())
