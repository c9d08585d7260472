"""Each baseline against scikit-learn's own, on the same embeddings."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from nlpmeta.data import LabeledTexts
from nlpmeta.learners.base import Support, Texts
from nlpmeta.learners.logistic import GRID, LogisticHead
from nlpmeta.learners.prototypical import NearestNeighbours, PrototypicalNetwork
from nlpmeta.learners.ridge import RidgeHead

SOLVER = 5e-3  # scikit-learn's default stops a little short of the optimum; a wrong penalty moves probabilities by 0.1


@pytest.fixture
def episode(sampler):
    return sampler.episode(3)


@pytest.fixture
def embedded(encoder, episode):
    with torch.no_grad():
        support, query = encoder(episode.support.texts), encoder(episode.query.texts)
    return support, np.asarray(episode.support.labels), query


def scores(learner, episode, embedded):
    support, _, query = embedded
    state = learner.adapt(Support.of(episode.support, support))
    return learner.logits(state, Texts(episode.query.texts, query)).detach()


def without(data: LabeledTexts, label: int) -> LabeledTexts:
    return data.with_classes([name for name in data.label_names if name != data.label_names[label]])


@pytest.mark.parametrize("inverse_penalty", [1.0, 100.0])
def test_logistic_regression_in_the_span_of_the_support_is_the_one_in_all_dimensions(
    encoder, episode, embedded, inverse_penalty
):
    support, labels, query = embedded
    theirs = LogisticRegression(C=inverse_penalty, tol=1e-8, max_iter=10_000).fit(support.double(), labels)
    ours = scores(LogisticHead(encoder, inverse_penalty=inverse_penalty), episode, embedded).softmax(1)
    np.testing.assert_allclose(ours, theirs.predict_proba(query.double()), atol=SOLVER)


def test_logistic_regression_of_more_texts_than_dimensions_agrees_too(encoder, pool):
    with torch.no_grad():
        features = encoder(pool.texts)
    assert len(features) > features.size(1)
    learner = LogisticHead(encoder, inverse_penalty=10.0)
    ours = learner.logits(learner.adapt(Support.of(pool, features)), Texts(pool.texts, features)).softmax(1)
    theirs = LogisticRegression(C=10.0, tol=1e-8, max_iter=10_000).fit(features.double(), pool.labels)
    np.testing.assert_allclose(ours, theirs.predict_proba(features.double()), atol=SOLVER)


def test_logistic_regression_of_two_classes_has_the_probabilities_of_the_binary_model(encoder, pool):
    two = without(pool, 2)
    with torch.no_grad():
        features = encoder(two.texts)
    learner = LogisticHead(encoder, inverse_penalty=5.0)
    ours = learner.logits(learner.adapt(Support.of(two, features)), Texts(two.texts, features)).softmax(1)
    theirs = LogisticRegression(C=5.0, tol=1e-8, max_iter=10_000).fit(features.double(), two.labels)
    np.testing.assert_allclose(ours, theirs.predict_proba(features.double()), atol=SOLVER)


def test_the_penalty_that_the_support_chooses_is_that_of_a_grid_search(encoder, episode, embedded):
    support, labels, query = embedded
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    grid = {"C": list(GRID)}
    search = GridSearchCV(LogisticRegression(max_iter=10_000), grid, scoring="neg_log_loss", cv=folds)
    theirs = search.fit(support.double(), labels)
    assert len(set(np.round(theirs.cv_results_["mean_test_score"], 6))) == len(GRID)
    ours = scores(LogisticHead(encoder), episode, embedded).softmax(1)
    np.testing.assert_allclose(ours, theirs.predict_proba(query.double()), atol=SOLVER)


def test_ridge_scores_are_those_of_ridge_regression_on_one_hot_labels(encoder, episode, embedded):
    support, labels, query = embedded
    targets = np.eye(3)[labels]
    theirs = Ridge(alpha=0.3).fit(support.double(), targets).predict(query.double()) - targets.mean(0)
    ours = scores(RidgeHead(encoder, penalty=0.3, scale=7.0, tune=False), episode, embedded)
    np.testing.assert_allclose(ours, 7.0 * theirs, atol=1e-4)


@pytest.mark.parametrize("seed", [1, 2, 9])
def test_the_penalty_that_ridge_chooses_is_the_one_with_the_most_left_out_texts_right(encoder, seed):
    labels = np.repeat(np.arange(3), 6)
    features = np.random.default_rng(seed).normal(size=(18, 8)) + 0.8 * np.eye(8)[labels]
    rows, targets = features - features.mean(0), np.eye(3)[labels] - 1 / 3
    right = {}
    for penalty in (0.3, 0.9, 0.09):  # the centre is that of all texts, as in the closed form
        guesses = [
            Ridge(alpha=penalty, fit_intercept=False)
            .fit(np.delete(rows, i, 0), np.delete(targets, i, 0))
            .predict(rows[[i]])
            for i in range(18)
        ]
        right[penalty] = int((np.concatenate(guesses).argmax(1) == labels).sum())
    best = max(right, key=right.__getitem__)
    assert len(set(right.values())) > 1, "the penalties must differ, or this test could not fail"
    support = Support(("",) * 18, torch.tensor(features), torch.tensor(labels), 3)
    ours = RidgeHead(encoder, penalty=0.3).double().adapt(support)
    same = RidgeHead(encoder, penalty=best, tune=False).double().adapt(support)
    torch.testing.assert_close(ours, same, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("k", [1, 5, 40])
def test_neighbours_vote_as_those_of_scikit_learn(encoder, episode, embedded, k):
    support, labels, query = embedded
    theirs = KNeighborsClassifier(
        min(k, len(labels)), metric="cosine", weights=lambda d: np.exp(d.min(1, keepdims=True) - d)
    ).fit(support, labels)
    ours = scores(NearestNeighbours(encoder, k=k), episode, embedded).exp() - 1e-3  # without its smoothing
    np.testing.assert_allclose(ours, theirs.predict_proba(query), atol=1e-4)


def test_prototypes_are_the_nearest_centroids(encoder, episode, embedded):
    support, labels, query = embedded
    theirs = NearestCentroid().fit(support, labels)
    learner = PrototypicalNetwork(encoder)
    assert scores(learner, episode, embedded).argmax(1).tolist() == theirs.predict(query).tolist()
    state = learner.adapt(Support.of(episode.support, support))
    np.testing.assert_allclose(state["prototypes"].detach(), theirs.centroids_, atol=1e-6)
