"""The one k-fold deals as each of its three users wants it: as scikit-learn does, or whatever order texts are in."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedKFold

from nlpmeta.auto.judging import _folds_of
from nlpmeta.data import LabeledTexts
from nlpmeta.episodes import by_label, deal_folds
from nlpmeta.episodes.kshot import FoldSampler
from nlpmeta.learners.base import Support
from nlpmeta.learners.logistic import _shuffled_folds


def pool(counts):
    """So many texts of each class, in a fixed random order."""
    rows = [(f"{name} {chr(97 + i)}", name) for name, count in counts.items() for i in range(count)]
    rows = [rows[i] for i in np.random.default_rng(5).permutation(len(rows))]
    return LabeledTexts.from_names(*map(list, zip(*rows, strict=True)))


@pytest.mark.parametrize(
    ("counts", "n_folds", "seed", "before"),
    [  # as the sampler dealt them when it still did so itself
        ({"a": 10, "b": 2, "c": 3, "d": 1, "e": 2}, 5, 0, "00133204401131-224"),
        ({"a": 7, "b": 7, "c": 4}, 3, 11, "221112000200000211"),
        ({"a": 3, "b": 3}, 2, 1, "001100"),
    ],
)
def test_the_fold_sampler_deals_as_it_always_did(counts, n_folds, seed, before):
    sampler = FoldSampler(pool(counts), n_folds=n_folds, seed=seed)
    fold_of = {row: str(fold) for fold in range(n_folds) for row in sampler.held_out(fold)}
    assert "".join(fold_of.get(row, "-") for row in range(len(before))) == before


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("most_ways", [2, 8], ids=["one label against the rest", "classes"])
def test_logistic_regression_chooses_on_the_folds_of_scikit_learn(seed, most_ways):
    rng = np.random.default_rng(seed)
    n_folds, n_way = int(rng.integers(2, 6)), int(rng.integers(2, most_ways + 1))
    labels = rng.permutation(np.repeat(np.arange(n_way), rng.integers(n_folds, 12, n_way)))
    ours = _shuffled_folds(labels, n_folds)
    theirs = StratifiedKFold(n_folds, shuffle=True, random_state=0).split(labels, labels)
    for fold, (_, test) in enumerate(theirs):
        assert np.flatnonzero(ours == fold).tolist() == test.tolist()


def support_of(labels):
    return Support(tuple(f"text {row}" for row in range(len(labels))), None, labels, int(labels.max()) + 1)


@pytest.mark.parametrize("folds", [2, 3])
def test_auto_deals_each_class_evenly_but_a_lone_text(folds):
    support = support_of(torch.tensor([2, 0, 0, 1, 0, 2, 1, 1, 3, 1, 0, 2, 2]))
    found = _folds_of(support, folds)
    for label in range(3):
        sizes = torch.bincount(found[support.labels == label], minlength=folds)
        assert len(sizes) == folds and int(sizes.max() - sizes.min()) <= 1
    assert found[support.labels == 3].tolist() == [-1]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_texts_does_not_decide_the_folds_of_auto(seed):
    support = support_of(torch.arange(4).repeat_interleave(torch.tensor([2, 2, 3, 5])))
    turned = np.random.default_rng(seed).permutation(len(support)).tolist()
    other = Support(tuple(support.texts[row] for row in turned), None, support.labels[turned], support.n_way)
    assert _folds_of(other, 2).tolist() == _folds_of(support, 2)[turned].tolist()


def test_texts_that_are_first_of_their_class_by_letter_are_not_all_held_out_together():
    first = _folds_of(support_of(torch.arange(40).repeat_interleave(2)), 2)[::2]
    assert 0 < int(first.sum()) < len(first)


def test_small_classes_start_where_the_last_small_one_ended_and_rows_of_no_class_are_in_no_fold():
    classes = by_label(np.array([0, 0, 0, 0, 1, 1, 2, 2]))
    assert deal_folds(classes, 3, n_rows=9, carry_below=3).tolist() == [0, 1, 2, 0, 0, 1, 2, 0, -1]
