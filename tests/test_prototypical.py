import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid

from nlpmeta.errors import UnknownNameError
from nlpmeta.learners.base import Support, Texts, class_means, squared_distances
from nlpmeta.learners.prototypical import PrototypicalNetwork


def test_class_means_by_hand():
    features = torch.tensor([[0.0, 0.0], [5.0, 1.0], [2.0, 4.0]])
    means = class_means(features, torch.tensor([0, 1, 0]), n_way=2)
    torch.testing.assert_close(means, torch.tensor([[1.0, 2.0], [5.0, 1.0]]))


def test_squared_distances_agree_with_the_definition():
    rows, columns = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.eye(3)
    torch.testing.assert_close(squared_distances(rows, columns), torch.cdist(rows, columns).square())


def test_agrees_with_scikit_learn_nearest_centroid(encoder, sampler):
    learner = PrototypicalNetwork(encoder).eval()
    for index in range(5):
        episode = sampler.episode(index)
        support, query = (encoder(part.texts).numpy() for part in (episode.support, episode.query))
        logits = learner.logits(learner.adapt(Support.of(episode.support)), Texts(episode.query.texts))
        theirs = NearestCentroid().fit(support, episode.support.labels).predict(query)
        np.testing.assert_array_equal(logits.argmax(1).numpy(), theirs)


def test_the_score_is_minus_the_squared_distance_over_the_temperature(encoder):
    learner = PrototypicalNetwork(encoder, temperature=0.5).eval()
    vector = encoder(["ball"])
    logits = learner.logits({"prototypes": vector + 0.25}, Texts(("ball",)))
    torch.testing.assert_close(logits, torch.tensor([[-16 * 0.0625 / 0.5]]))


def test_the_cosine_ignores_the_length_of_prototypes(encoder):
    learner = PrototypicalNetwork(encoder, metric="cosine", temperature=1.0).eval()
    vector = encoder(["ball"])
    logits = learner.logits({"prototypes": torch.cat([vector, 7 * vector, -vector])}, Texts(("ball",)))
    torch.testing.assert_close(logits, torch.tensor([[1.0, 1.0, -1.0]]))


def test_an_unknown_metric_is_refused_with_the_known_ones(encoder):
    with pytest.raises(UnknownNameError, match="no metric named 'cosin'.*Did you mean 'cosine'.*euclidean"):
        PrototypicalNetwork(encoder, metric="cosin")


def test_the_temperature_is_learned_on_a_logarithmic_scale(encoder):
    learner = PrototypicalNetwork(encoder, temperature=0.02)
    assert learner.log_temperature.requires_grad
    assert learner.log_temperature.item() == pytest.approx(math.log(0.02))
