import numpy as np
import pytest
import torch

from nlpmeta import FewShotClassifier, TextEncoder
from nlpmeta.errors import DataError, ModelFolderError, NLPMetaError, UnknownNameError
from nlpmeta.learners.base import learners

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


@pytest.mark.parametrize("method", ["mann", "rnn", "snail"])
def test_the_class_that_a_stream_heard_last_can_be_removed(encoder, method):
    stream = FewShotClassifier(learners[method](encoder).eval())
    stream.partial_fit(["ball", "rice", "loan"], ["sport", "food", "money"]).remove_class("money")
    assert np.isfinite(stream.predict_proba(["loan", "rice"])).all()
    assert stream.partial_fit(["loan"], ["bank"]).classes_.tolist() == ["bank", "food", "sport"]


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
    del classifier._names_  # what is embedded by itself and in a batch may differ in the last digit
    grown, same = loaded.add_class(name, more), classifier.add_class(name, more)
    np.testing.assert_array_equal(grown.predict_proba(texts + more), same.predict_proba(texts + more))


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
    with pytest.raises(DataError, match="differs in type"):
        classifier.add_class(7, more)
    with pytest.raises(DataError, match="holds no texts"):
        classifier.add_class(name, [])
    np.testing.assert_array_equal(classifier.predict_proba(texts), before)


def heads_judged(monkeypatch):
    """How many supports have been judged so far, as a list of their sizes."""
    from nlpmeta.auto.method import AutoHead

    sizes, plain = [], AutoHead.judge
    monkeypatch.setattr(AutoHead, "judge", lambda self, known: sizes.append(len(known)) or plain(self, known))
    return sizes


def test_auto_weighs_its_heads_anew_only_when_much_has_changed(encoder, task, monkeypatch):
    texts, labels, more, name = task
    sizes = heads_judged(monkeypatch)
    classifier = FewShotClassifier(encoder=encoder).fit(texts, labels)
    shares = {key: value for key, value in classifier.state_.items() if key.endswith("/share")}
    classifier.partial_fit(texts[:1], labels[:1])
    assert sizes == [len(texts)]
    assert {key: value for key, value in classifier.state_.items() if key.endswith("/share")} == shares
    classifier.add_class(name, more)  # half as many again
    assert sizes == [len(texts), len(texts) + 1 + len(more)]
    classifier.remove_class(name)
    assert len(sizes) == 2 + (3 * (len(texts) + 1) <= 2 * (len(texts) + 1 + len(more)))


def test_auto_refits_its_heads_as_a_fit_with_these_shares_would(encoder, task):
    texts, labels, *_ = task
    grown = FewShotClassifier(encoder=encoder).fit(texts[1:], labels[1:]).partial_fit(texts[:1], labels[:1])
    whole = FewShotClassifier(encoder=encoder).fit(texts[1:] + texts[:1], labels[1:] + labels[:1])
    for key, value in whole.state_.items():
        if key in grown.state_ and not key.endswith(("share", "scores_over", "temperature", "held_out", "judged")):
            torch.testing.assert_close(grown.state_[key], value, rtol=1e-3, atol=1e-3)


def test_a_first_second_example_or_a_name_that_says_nothing_is_much(encoder, task, monkeypatch):
    texts, labels, *_ = task
    first = [labels.index(label) for label in sorted(set(labels))]
    sizes = heads_judged(monkeypatch)
    one_each = FewShotClassifier(encoder=encoder).fit([texts[i] for i in first], [labels[i] for i in first])
    one_each.partial_fit([texts[i + 1] for i in first], [labels[i + 1] for i in first])
    assert len(sizes) == 2  # something can be held out now
    known = FewShotClassifier(encoder=encoder).fit(texts, [f"set the {label}" for label in labels])
    known.rename_class(f"set the {labels[0]}", "17")
    assert len(sizes) == 4


def test_a_model_of_an_older_release_is_judged_anew(encoder, task, monkeypatch):
    texts, labels, *_ = task
    classifier = FewShotClassifier(encoder=encoder).fit(texts, labels)
    del classifier.state_["mixture/judged"]
    sizes = heads_judged(monkeypatch)
    classifier.partial_fit(texts[:1], labels[:1])
    assert len(sizes) == 1


def test_class_names_are_embedded_once(encoder, task, monkeypatch):
    texts, labels, more, name = task
    seen, plain = [], TextEncoder.embed_tokens
    monkeypatch.setattr(
        TextEncoder, "embed_tokens", lambda self, tokens, **k: seen.append(len(tokens)) or plain(self, tokens, **k)
    )
    words = [f"about {label}" for label in labels]
    classifier = FewShotClassifier(encoder=encoder).fit(texts, words)
    assert sum(seen) == len(texts) + len(set(labels))
    classifier.add_class(f"about {name}", more)
    assert sum(seen) == len(texts) + len(set(labels)) + len(more) + 1
    classifier.remove_class(f"about {name}")
    assert sum(seen) == len(texts) + len(set(labels)) + len(more) + 1
