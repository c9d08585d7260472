import numpy as np
import pytest
import torch

from nlpmeta import FewShotClassifier, TextEncoder
from nlpmeta.errors import DataError, ModelFolderError, NLPMetaError, UnknownNameError

METHODS = ["prototypical", "logistic", "knn", "auto", "anil"]


@pytest.fixture
def task(pool):
    """Texts and labels of three classes, and those of the third alone."""
    labels = np.asarray(pool.names())
    texts = np.asarray(pool.texts)
    third = labels == sorted(set(labels))[2]
    return texts[~third].tolist(), labels[~third].tolist(), texts[third].tolist(), labels[third][0].item()


@pytest.mark.parametrize("method", METHODS)
def test_adding_a_class_gives_what_fitting_on_everything_gives(encoder, task, method):
    texts, labels, more, name = task
    grown = FewShotClassifier(method, encoder=encoder).fit(texts, labels).add_class(name, more)
    whole = FewShotClassifier(method, encoder=encoder).fit(texts + more, labels + [name] * len(more))
    assert grown.classes_.tolist() == whole.classes_.tolist()
    np.testing.assert_allclose(grown.predict_proba(texts + more), whole.predict_proba(texts + more), atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_removing_a_class_gives_what_never_having_had_it_gives(encoder, task, method):
    texts, labels, more, name = task
    whole = FewShotClassifier(method, encoder=encoder).fit(texts + more, labels + [name] * len(more))
    never = FewShotClassifier(method, encoder=encoder).fit(texts, labels)
    np.testing.assert_allclose(whole.remove_class(name).predict_proba(texts), never.predict_proba(texts), atol=1e-4)


def test_examples_may_come_one_by_one(encoder, task):
    texts, labels, *_ = task
    order = [i for pair in zip(range(0, 6), range(len(texts) - 6, len(texts)), strict=True) for i in pair]
    stream = FewShotClassifier("prototypical", encoder=encoder)
    stream.partial_fit([texts[i] for i in order[:2]], [labels[i] for i in order[:2]])
    for i in order[2:]:
        stream.partial_fit([texts[i]], [labels[i]])
    whole = FewShotClassifier("prototypical", encoder=encoder).fit(
        [texts[i] for i in order], [labels[i] for i in order]
    )
    np.testing.assert_allclose(stream.predict_proba(texts), whole.predict_proba(texts), atol=1e-5)


def test_only_new_texts_are_embedded(encoder, task, monkeypatch):
    texts, labels, more, name = task
    classifier = FewShotClassifier("prototypical", encoder=encoder).fit(texts, labels)
    seen = []
    plain = TextEncoder.encode
    monkeypatch.setattr(TextEncoder, "encode", lambda self, t, **k: seen.extend(t) or plain(self, t, **k))
    classifier.add_class(name, more).remove_class(name)
    assert sorted(seen) == sorted(more)


def test_the_scores_of_the_others_stay_where_classes_are_independent(encoder, task):
    texts, labels, more, name = task
    classifier = FewShotClassifier("prototypical", encoder=encoder).fit(texts, labels)
    before = classifier.state_["prototypes"].clone()
    classifier.add_class(name, more)
    kept = [classifier.classes_.tolist().index(label) for label in sorted(set(labels))]
    torch.testing.assert_close(classifier.state_["prototypes"][kept], before)


def test_renaming_keeps_the_predictions_and_a_method_reads_the_new_name(encoder, task):
    texts, labels, *_ = task
    old = sorted(set(labels))[0]
    classifier = FewShotClassifier("prototypical", encoder=encoder).fit(texts, labels)
    before = classifier.predict(texts)
    renamed = classifier.rename_class(old, "zzz last").predict(texts)
    assert renamed.tolist() == ["zzz last" if label == old else label for label in before]
    assert classifier.classes_.tolist() == sorted([*(set(labels) - {old}), "zzz last"])


def test_a_model_saved_with_its_examples_can_grow_after_loading(encoder_folder, task, tmp_path):
    texts, labels, more, name = task
    encoder = TextEncoder.from_pretrained(str(encoder_folder))
    classifier = FewShotClassifier("auto", encoder=encoder).fit(texts, labels)
    classifier.save_pretrained(tmp_path / "with", include_support=True)
    loaded = FewShotClassifier.from_pretrained(tmp_path / "with")
    grown, same = loaded.add_class(name, more), classifier.add_class(name, more)
    np.testing.assert_allclose(grown.predict_proba(texts + more), same.predict_proba(texts + more), atol=1e-5)


def test_a_model_saved_without_its_examples_says_so_and_holds_no_text(encoder_folder, task, tmp_path):
    texts, labels, more, name = task
    encoder = TextEncoder.from_pretrained(str(encoder_folder))
    FewShotClassifier("prototypical", encoder=encoder).fit(texts, labels).save_pretrained(tmp_path / "without")
    loaded = FewShotClassifier.from_pretrained(tmp_path / "without")
    with pytest.raises(NLPMetaError, match="saved without its examples"):
        loaded.add_class(name, more)
    written = b"".join(file.read_bytes() for file in (tmp_path / "without").iterdir())
    assert not any(text.encode() in written for text in texts)


def test_damaged_examples_are_refused(encoder_folder, task, tmp_path):
    texts, labels, *_ = task
    encoder = TextEncoder.from_pretrained(str(encoder_folder))
    classifier = FewShotClassifier("prototypical", encoder=encoder).fit(texts, labels)
    classifier.save_pretrained(tmp_path / "m", include_support=True)
    (tmp_path / "m" / "support.json").write_text('{"texts": ["a"], "labels": ["x", "y"]}', "utf-8")
    with pytest.raises(ModelFolderError):
        FewShotClassifier.from_pretrained(tmp_path / "m")


def test_impossible_changes_are_refused_and_change_nothing(encoder, task):
    texts, labels, more, name = task
    one, two = sorted(set(labels))
    classifier = FewShotClassifier("prototypical", encoder=encoder).fit(texts, labels)
    before = classifier.predict_proba(texts)
    with pytest.raises(DataError, match="There is a class"):
        classifier.add_class(one, more)
    with pytest.raises(DataError, match="There is a class"):
        classifier.rename_class(one, two)
    with pytest.raises(DataError, match="needs at least two"):
        classifier.remove_class(one)
    with pytest.raises(UnknownNameError, match="nonesuch"):
        classifier.remove_class("nonesuch")
    with pytest.raises(DataError, match="not of the kind"):
        classifier.add_class(7, more)
    with pytest.raises(DataError, match="holds no texts"):
        classifier.add_class(name, [])
    np.testing.assert_array_equal(classifier.predict_proba(texts), before)
