import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from nlpmeta.data import readable_names
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Support, Texts
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.learners.prototypical import PrototypicalNetwork


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["alarm_set", "lists/remove"], ("alarm set", "lists remove")),
        (["HassTurnOn", "ham"], ("hass turn on", "ham")),
        (["kengele ya asubuhi", "天气预报"], ("kengele ya asubuhi", "天气预报")),
    ],
)
def test_names_become_plain_words(names, words):
    assert readable_names(names) == words


@pytest.mark.parametrize(
    "name", ["हिंदी समाचार", "செய்திகள்", "ข่าวกีฬา", "می\u200cخواهم", "cafe\u0301 au lait", "शिकायत", "ክፍያ"]
)
def test_vowel_signs_and_joiners_belong_to_their_words(name):
    assert readable_names((name, "another name")) == (name, "another name")


@pytest.mark.parametrize(
    "names",
    [
        ["0", "1"],
        ["alarm", "7"],
        ["label_1", "label_2"],
        ["class 3", "alarm"],
        ["a", "b"],
        ["Play_Music", "play music"],
    ],
)
def test_names_that_say_nothing_are_not_read(names):
    assert readable_names(names) is None


def test_a_name_counts_as_so_many_texts_of_its_class(encoder):
    features = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    names = Texts(("one", "two"), torch.tensor([[0.0, 4.0], [5.0, 5.0]]))
    support = Support(("", "", ""), features, torch.tensor([0, 0, 1]), 2, names)
    learner = PrototypicalNetwork(encoder, names=True, name_weight=2.0)
    found = learner.adapt(support)["prototypes"].detach()
    torch.testing.assert_close(found, torch.tensor([[1.0, 2.0], [10 / 3, 4.0]]))  # (1 + 3 + 2 * 0) / 4, ...
    assert learner.name_weight == pytest.approx(2.0)


def test_a_learner_that_reads_no_names_gets_none(encoder, pool):
    assert PrototypicalNetwork(encoder).support(pool).names is None
    named = PrototypicalNetwork(encoder, names=True)
    assert named.support(pool).names.texts == readable_names(pool.label_names)
    assert named.texts_of(pool) == pool.texts + readable_names(pool.label_names)


def test_the_weight_of_names_is_meta_trained(encoder, pool):
    learner = PrototypicalNetwork(encoder, names=True)
    support = learner.support(pool, lambda texts: encoder(texts))
    learner.episode_loss(support, Support.of(pool, encoder(pool.texts))).backward()
    assert abs(float(learner.log_name_weight.grad)) > 1e-8


def test_logistic_regression_weighs_names_as_scikit_learn_does(encoder):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 4)
    features = rng.normal(size=(12, 5)) + 2 * np.eye(3, 5)[labels]
    names, queries = rng.normal(size=(3, 5)), rng.normal(size=(7, 5))
    theirs = LogisticRegression(C=10.0, max_iter=5000).fit(
        np.vstack([features, names]), np.r_[labels, 0, 1, 2], np.r_[np.ones(12), np.full(3, 2.0)]
    )
    learner = LogisticHead(encoder, inverse_penalty=10.0, name_weight=2.0)
    words = Texts(("x", "y", "z"), torch.tensor(names))
    support = Support(("",) * 12, torch.tensor(features), torch.tensor(labels), 3, words)
    ours = learner.logits(learner.adapt(support), Texts(("",) * 7, torch.tensor(queries))).softmax(1)
    np.testing.assert_allclose(ours, theirs.predict_proba(queries), atol=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda e: PrototypicalNetwork(e, name_weight=0.0),
        lambda e: PrototypicalNetwork(e, temperature=-1.0),
        lambda e: LogisticHead(e, name_weight=-1.0),
    ],
)
def test_impossible_weights_are_refused(encoder, make):
    with pytest.raises(NLPMetaError, match="must"):
        make(encoder)


def test_a_support_needs_one_name_a_class():
    with pytest.raises(NLPMetaError, match="2 classes came with 1 names"):
        Support(("a", "b"), None, torch.tensor([0, 1]), 2, Texts(("only",)))
