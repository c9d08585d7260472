import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from nlpmeta.auto.judging import fitting_temperature, mixture_temperature, stacked
from nlpmeta.auto.mixture import mixed

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


def heads(seed=0, n_heads=4):
    """Log probabilities of heads that are right more or less often."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(n_heads, len(LABELS), 3, generator=generator)
    sharpness = torch.arange(n_heads, dtype=torch.float32).view(-1, 1, 1)
    return (scores + sharpness * torch.eye(3)[LABELS]).log_softmax(2)


def by_optimiser(log_probabilities, prior, strength):
    """The same maximum, found by a general optimiser over the logits of the weights."""
    likely = log_probabilities[:, torch.arange(len(LABELS)), LABELS].double().exp().numpy()
    prior = prior.numpy()

    def loss(logits):
        weights = np.exp(logits - logits.max())
        weights /= weights.sum()
        return -np.log(weights @ likely).sum() - strength * (prior * np.log(weights)).sum()

    found = minimize(loss, np.zeros(len(prior)), method="BFGS", options={"gtol": 1e-9}).x
    weights = np.exp(found - found.max())
    return torch.from_numpy(weights / weights.sum())


@pytest.mark.parametrize("strength", [0.5, 3.0, 50.0])
def test_weights_are_the_maximum_that_a_general_optimiser_finds(strength):
    prior = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    ours = stacked(heads(), LABELS, prior, strength=strength)
    torch.testing.assert_close(ours, by_optimiser(heads(), prior, strength), atol=2e-3, rtol=0)


def test_without_a_held_out_text_the_weights_are_the_prior():
    prior = torch.tensor([0.7, 0.3], dtype=torch.float64)
    none = torch.empty(2, 0, 3)
    torch.testing.assert_close(stacked(none, torch.empty(0, dtype=torch.long), prior, strength=1.0), prior)


def test_a_head_that_the_prior_excludes_stays_out():
    prior = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64)
    assert stacked(heads(), LABELS, prior, strength=1.0)[2:].tolist() == [0.0, 0.0]


def test_a_mixture_is_the_mean_of_probabilities_and_not_of_logarithms():
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4])
    expected = (weights.view(-1, 1, 1) * heads().exp()).sum(0)
    torch.testing.assert_close(mixed(heads(), weights).exp(), expected)


def test_the_temperature_is_the_best_of_those_offered():
    scores = 5 * torch.randn(200, 3, generator=torch.Generator().manual_seed(1))
    labels = torch.multinomial((scores / 4).softmax(1), 1, generator=torch.Generator().manual_seed(2)).squeeze(1)
    offered = torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
    assert fitting_temperature(scores, labels, offered, doubt=0.0) == 4.0


def test_a_few_texts_leave_the_temperature_near_the_usual_one_and_many_do_not():
    """Three right answers would be likeliest under the sharpest scores."""
    scores, labels = torch.eye(3).repeat(200, 1), torch.arange(3).repeat(200)
    offered = torch.logspace(-3, 3, 31, base=2.0)
    few, many = (
        fitting_temperature(scores[:n], labels[:n], offered, doubt=0.0, usual=2.0, strength=2.0) for n in (3, 600)
    )
    assert fitting_temperature(scores[:3], labels[:3], offered, doubt=0.0) == pytest.approx(1 / 8)
    assert 1.0 < few < 2.0
    assert many < few / 2


def test_the_usual_temperature_is_kept_where_it_is_the_best_and_where_nothing_else_is_said():
    offered = torch.logspace(-3, 3, 31, base=2.0)
    flat, labels = torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])
    assert fitting_temperature(flat, labels, offered, doubt=0.1, usual=2.0, strength=1.0) == pytest.approx(2.0)


@pytest.mark.parametrize("usual", [0.8, 1.3])
def test_the_temperature_of_a_mixture_follows_its_held_out_texts_the_more_of_them_there_are(usual):
    assert mixture_temperature(None, LABELS, usual) == usual
    found = {}
    for n in (4, 40):
        labels = torch.arange(2).repeat(n)
        sure = torch.tensor([[0.98, 0.02]]).log()
        guessed = sure.repeat(2 * n, 1)  # right half of the time, and never in doubt
        right = torch.where(labels.unsqueeze(1) == 0, sure, sure.flip(1)) / 4  # always right, and mostly in doubt
        found[n] = [mixture_temperature(each, labels, usual) for each in (guessed, right)]
    (few_up, few_down), (many_up, many_down) = found[4], found[40]
    assert many_up > few_up > usual and many_down < min(few_down, usual)
    assert many_up > 4 * usual and many_down < usual / 2
