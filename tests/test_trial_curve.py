"""The learning curve of a trial: nested supports, the same queries."""

import pytest

from nlpmeta.episodes.kshot import KShotSampler
from nlpmeta.evaluation.measure import learning_curve
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.metrics.scores import score_episodes


def test_each_point_is_the_trial_with_the_first_texts_of_each_class(encoder, pool):
    learner = PrototypicalNetwork(encoder).eval()
    scores = score_episodes(learner, KShotSampler(pool, n_shot=4, seed=0), 3, embed=encoder.encode)
    curve = learning_curve(learner, scores, embed=encoder.encode)
    assert [point.n_shot for point in curve] == [1, 2, 4]
    assert curve[-1].accuracy.mean == pytest.approx(sum(score.accuracy for score in scores) / 3)
    # By hand: one text of each class of draw 0, nearest neighbour among them.
    right = []
    for score in scores:
        support, query = score.episode.support, score.episode.query
        first = [support.labels.index(label) for label in range(3)]
        keys = encoder.encode([support.texts[row] for row in first])
        nearest = (encoder.encode(query.texts).unsqueeze(1) - keys).square().sum(2).argmin(1).tolist()
        right.append(sum(a == b for a, b in zip(nearest, query.labels, strict=True)) / len(query))
    assert curve[0].accuracy.mean == pytest.approx(sum(right) / 3)


def test_there_is_no_curve_of_one_shot(encoder, pool):
    learner = PrototypicalNetwork(encoder).eval()
    scores = score_episodes(learner, KShotSampler(pool, n_shot=1, seed=0), 2, embed=encoder.encode)
    assert learning_curve(learner, scores, embed=encoder.encode) == []
