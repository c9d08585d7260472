"""Heads on thousands of examples: the same solutions as on few, in time and memory that grow linearly."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.utils._python_dispatch import TorchDispatchMode

from nlpmeta.learners import logistic, ridge
from nlpmeta.learners.base import Support, Texts
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.learners.ridge import RidgeHead


def clouds(n: int, n_way: int, *, dim: int = 12, seed: int = 0) -> Support:
    """Overlapping clouds of points, one for each class, some directions far wider than others."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % n_way
    widths = np.exp(-np.arange(dim) / 3)
    rows = widths * (1.5 * rng.normal(size=(n_way, dim))[labels] + rng.normal(size=(n, dim))) + 0.8 * np.eye(dim)[0]
    return Support(("",) * n, torch.tensor(rows).float(), torch.tensor(labels), n_way)


@pytest.mark.parametrize("n_way", [2, 5])
@pytest.mark.parametrize("weighed", [False, True])
def test_logistic_regression_of_many_texts_is_at_scikit_learns_minimum(encoder, n_way, weighed):
    support = clouds(logistic.MANY + 200, n_way)
    weights = torch.linspace(0.2, 3.0, len(support)) if weighed else None
    support = Support(support.texts, support.features, support.labels, n_way, weights=weights)
    theirs = LogisticRegression(C=100.0, tol=1e-9, max_iter=10_000)
    theirs.fit(support.features.double(), support.labels, None if weights is None else weights.double())
    learner = LogisticHead(encoder, inverse_penalty=100.0)
    ours = learner.logits(learner.adapt(support), support).softmax(1)
    np.testing.assert_allclose(ours, theirs.predict_proba(support.features.double()), atol=5e-3)


@pytest.mark.parametrize("weighed", [False, True])
def test_ridge_solved_in_the_size_of_an_embedding_is_ridge_solved_in_that_of_the_support(encoder, monkeypatch, weighed):
    support = clouds(120, 4)
    weights = torch.linspace(0.2, 3.0, len(support), dtype=torch.float64) if weighed else None
    support = Support(support.texts, support.features.double(), support.labels, 4, weights=weights)
    learner = RidgeHead(encoder, penalty=2.0).double()
    of_support, queries = learner.adapt(support), Texts(support.texts, support.features)
    parts = learner.contributions(of_support, support, queries)
    monkeypatch.setattr(ridge, "IN_DIM", 100)
    of_dim = learner.adapt(support)
    torch.testing.assert_close(of_dim, of_support)
    torch.testing.assert_close(learner.contributions(of_dim, support, queries), parts)


def test_both_sizes_choose_the_same_factor_on_the_penalty_of_ridge(encoder, monkeypatch):
    chosen = []
    for seed in range(12):
        support = clouds(90, 3, seed=seed)
        support = Support(support.texts, support.features.double(), support.labels, 3)
        for most in (1000, 50):
            monkeypatch.setattr(ridge, "IN_DIM", most)
            tuned = RidgeHead(encoder, penalty=20.0).double().adapt(support)["weight"]
            fixed = [RidgeHead(encoder, penalty=20.0 * f, tune=False).double().adapt(support) for f in ridge.FACTORS]
            chosen.append([torch.allclose(tuned, each["weight"]) for each in fixed].index(True))
    assert chosen[::2] == chosen[1::2]
    assert len(set(chosen)) > 1, "the factors must differ, or this test could not fail"


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor that was made has."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else [made]:
            if isinstance(each, torch.Tensor):
                self.numbers = max(self.numbers, each.numel())
        return made


@pytest.mark.parametrize("kind", [RidgeHead, lambda encoder: LogisticHead(encoder, inverse_penalty=100.0)])
def test_no_head_holds_a_number_for_each_pair_of_many_texts(encoder, kind):
    largest = {}
    for n in (1500, 3000):
        with Largest() as seen, torch.no_grad():
            kind(encoder).adapt(clouds(n, 3))
        largest[n] = seen.numbers
    assert largest[3000] <= 2 * largest[1500]
    assert largest[3000] < 3000 * 20
