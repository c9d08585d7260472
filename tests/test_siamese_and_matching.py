import numpy as np
import pytest
import torch
from meta_task import noisy_encoder, samplers

from nlpmeta.encoder.lora import AdapterSettings, add_adapter
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Support, Texts
from nlpmeta.learners.prototypical import MatchingNetwork, SiameseNetwork
from nlpmeta.training import TrainSettings
from nlpmeta.training.engine import meta_train


def vectors(n, seed):
    return torch.tensor(np.random.default_rng(seed).normal(size=(n, 16)), dtype=torch.float32)


def support_of(labels, n_way, seed=0):
    return Support(tuple("abcdefgh"[: len(labels)]), vectors(len(labels), seed), torch.tensor(labels), n_way)


def test_siamese_scores_are_mean_log_odds_of_pairs_by_hand(encoder):
    learner, support, queries = SiameseNetwork(encoder), support_of([0, 1, 0], 2), Texts(("x", "y"), vectors(2, 1))
    with torch.no_grad():
        learner.log_weights += torch.linspace(-1, 1, 16)
        logits = learner.logits(learner.adapt(support), queries).numpy()
    weights, scale, threshold = (
        x.detach().double().numpy() for x in (learner.log_weights.exp(), learner.log_scale.exp(), learner.threshold)
    )
    for q in range(2):
        odds = [
            scale * (threshold - np.sum(weights * np.abs(queries.features[q].numpy() - support.features[s].numpy())))
            for s in range(3)
        ]
        np.testing.assert_allclose(logits[q], [(odds[0] + odds[2]) / 2, odds[1]], rtol=1e-4)


def test_siamese_loss_is_the_balanced_cross_entropy_of_pairs_by_hand(encoder):
    learner, support, query = SiameseNetwork(encoder), support_of([0, 1, 0], 2), support_of([0, 1], 2, seed=1)
    with torch.no_grad():
        ours = float(learner.episode_loss(support, query))
        odds = learner._similarity(query.features, support.features).double().numpy()
    same = np.array([[True, False, True], [False, True, False]])
    likely = 1 / (1 + np.exp(-np.where(same, odds, -odds)))
    losses = -np.log(np.maximum(likely, 1e-300))
    assert ours == pytest.approx((losses[same].mean() + losses[~same].mean()) / 2, rel=1e-4)


def test_matching_is_the_attention_of_the_paper_with_equal_shots(encoder):
    learner, support = MatchingNetwork(encoder), support_of([0, 1, 1, 0], 2)
    queries = Texts(("x", "y", "z"), vectors(3, 1))
    with torch.no_grad():
        ours = learner.logits(learner.adapt(support), queries).softmax(1).numpy()
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries.features.numpy(), support.features.numpy())]
    attention = np.exp(unit[0] @ unit[1].T / 0.05)
    attention /= attention.sum(1, keepdims=True)
    np.testing.assert_allclose(ours, attention @ np.eye(2)[[0, 1, 1, 0]], rtol=1e-4, atol=1e-7)


def test_matching_stays_finite_when_a_class_is_far_away(encoder):
    learner = MatchingNetwork(encoder, temperature=0.001)
    support = Support(("a", "b"), torch.stack([torch.ones(16), -torch.ones(16)]), torch.tensor([0, 1]), 2)
    logits = learner.logits(learner.adapt(support), Texts(("q",), torch.ones(1, 16)))
    logits.sum().backward()
    assert logits.isfinite().all() and learner.log_temperature.grad.isfinite()
    assert int(logits.argmax()) == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", [SiameseNetwork, MatchingNetwork])
def test_meta_training_raises_accuracy_on_classes_never_trained_on(kind):
    encoder = noisy_encoder()
    add_adapter(encoder, AdapterSettings(rank=4), seed=0)
    train, heldout = samplers()
    settings = TrainSettings(
        steps=60, eval_every=60, eval_episodes=30, learning_rate=5e-3, head_learning_rate=1e-2, warmup=5, ema=0.9
    )
    result = meta_train(kind(encoder), train, settings=settings, evaluate={"classes": heldout})
    assert result.best_accuracy > result.first_accuracy + 0.2


def test_impossible_options_are_refused(encoder):
    with pytest.raises(NLPMetaError, match="scale must be positive"):
        SiameseNetwork(encoder, scale=0)
    with pytest.raises(NLPMetaError, match="temperature must be positive"):
        MatchingNetwork(encoder, temperature=-1)
