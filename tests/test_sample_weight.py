"""``sample_weight``: a text of weight 2 counts as that text twice, and methods that cannot use it say so."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from nlpmeta import FewShotClassifier
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.learners.base import learners
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.learners.ridge import RidgeHead

TEXTS = ["ball goal", "goal match team", "rice soup", "soup bread", "bank", "loan cash"]
NAMES = ["sport", "sport", "food", "food", "money", "money"]
WEIGHTS = [3, 1, 2, 1, 1, 2]
ASKED = ["ball rice", "bank goal", "soup loan", "team"]


def made(encoder, kind):
    return {
        "logistic": LogisticHead(encoder, inverse_penalty=10.0),
        "logistic that reads names": LogisticHead(encoder, inverse_penalty=10.0, name_weight=2.0),
        "ridge": RidgeHead(encoder, tune=False),
        "prototypical": PrototypicalNetwork(encoder),
        "prototypical that reads names": PrototypicalNetwork(encoder, names=True),
    }[kind]


KINDS = ["logistic", "logistic that reads names", "ridge", "prototypical", "prototypical that reads names"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_of_two_is_the_text_twice(kind, encoder):
    weighed = FewShotClassifier(made(encoder, kind)).fit(TEXTS, NAMES, sample_weight=WEIGHTS)
    repeated = FewShotClassifier(made(encoder, kind)).fit(np.repeat(TEXTS, WEIGHTS), np.repeat(NAMES, WEIGHTS))
    plain = FewShotClassifier(made(encoder, kind)).fit(TEXTS, NAMES)
    drift, change = (
        np.abs(weighed.predict_proba(ASKED) - each.predict_proba(ASKED)).max() for each in (repeated, plain)
    )
    assert drift < 1e-3  # where scikit-learn's solver stops
    assert change > 3 * drift and change > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_of_nothing_is_no_text_and_weights_of_one_change_nothing(kind, encoder):
    without = FewShotClassifier(made(encoder, kind)).fit(TEXTS[1:], NAMES[1:]).predict_proba(ASKED)
    nothing = FewShotClassifier(made(encoder, kind)).fit(TEXTS, NAMES, sample_weight=[0, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(nothing.predict_proba(ASKED), without, atol=1e-5)


def test_agrees_with_scikit_learn_on_the_same_embeddings(encoder):
    rows, asked = (encoder.encode(each).detach().double().numpy() for each in (TEXTS, ASKED))
    ours = FewShotClassifier(made(encoder, "logistic")).fit(TEXTS, NAMES, sample_weight=WEIGHTS).predict_proba(ASKED)
    theirs = LogisticRegression(C=10.0, max_iter=5000).fit(rows, NAMES, WEIGHTS).predict_proba(asked)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    head = made(encoder, "ridge")
    fitted = FewShotClassifier(head).fit(TEXTS, NAMES, sample_weight=WEIGHTS)
    targets = (np.array(NAMES)[:, None] == fitted.classes_).astype(float)
    reference = Ridge(alpha=float(head.log_penalty.detach().exp())).fit(rows, targets, WEIGHTS)
    centre = fitted.state_["centre"].double().numpy()
    np.testing.assert_allclose(centre, np.average(rows, axis=0, weights=WEIGHTS), atol=1e-5)
    scores = float(head.log_scale.detach().exp()) * (asked - centre) @ reference.coef_.T  # ours has no intercept to add
    np.testing.assert_allclose(fitted.predict_proba(ASKED), torch.tensor(scores).softmax(1).numpy(), atol=1e-3)


@pytest.mark.parametrize("name", [name for name in learners if not learners[name].weighs])
def test_a_method_that_cannot_use_weights_says_which_can(name, encoder):
    with pytest.raises(NLPMetaError, match=f"{name} does not use sample_weight.*do: logistic, prototypical, ridge."):
        FewShotClassifier(name, encoder=encoder).fit(TEXTS, NAMES, sample_weight=WEIGHTS)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1, 2], "6 texts but sample_weight has 2"),
        ([1, 1, 1, 1, 1, -1], "row 5 is -1"),
        ([1, 1, 1, 1, 1, float("nan")], "row 5 is nan"),
        ([1, 1, 1, 1, 1, None], "row 5 is None"),
        ([1, 1, 1, 1, 1, "2"], "row 5 is '2'"),
        ([0] * 6, "Every number in sample_weight is 0"),
        ([0, 0, 1, 1, 1, 1], "class 'sport' has the weight 0"),
        (2.0, r"it is 2.0 \(float\)"),
        (np.ones((6, 1)), r"its shape is \(6, 1\)"),
    ],
)
def test_weights_that_are_none_are_refused(weights, said, encoder):
    with pytest.raises(DataError, match=said):
        FewShotClassifier("prototypical", encoder=encoder).fit(TEXTS, NAMES, sample_weight=weights)


def test_weights_come_in_every_container_and_stay_as_they_are(encoder):
    expected = FewShotClassifier("ridge", encoder=encoder).fit(TEXTS, NAMES, sample_weight=WEIGHTS).predict_proba(ASKED)
    for given in (np.array(WEIGHTS, dtype=np.float32), pd.Series(WEIGHTS, index=list("abcdef")), tuple(WEIGHTS)):
        before = list(given)
        fitted = FewShotClassifier("ridge", encoder=encoder).fit(TEXTS, NAMES, sample_weight=given)
        np.testing.assert_array_equal(fitted.predict_proba(ASKED), expected)
        assert list(given) == before


def test_weights_stay_with_the_examples_after_saving_and_growing(encoder_folder, tmp_path):
    fitted = FewShotClassifier("prototypical", encoder=str(encoder_folder)).fit(TEXTS, NAMES, sample_weight=WEIGHTS)
    fitted.save_pretrained(tmp_path / "model", include_support=True)
    loaded = FewShotClassifier.from_pretrained(tmp_path / "model")
    for each in (fitted, loaded):
        each.partial_fit(["rate"], ["money"])
    again = FewShotClassifier("prototypical", encoder=str(encoder_folder))
    again.fit([*TEXTS, "rate"], [*NAMES, "money"], sample_weight=[*WEIGHTS, 1])
    np.testing.assert_allclose(loaded.predict_proba(ASKED), again.predict_proba(ASKED), atol=1e-6)
    np.testing.assert_array_equal(loaded.predict_proba(ASKED), fitted.predict_proba(ASKED))
