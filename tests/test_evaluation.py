"""Scores of episodes, their intervals, and differences between methods."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from nlpmeta.data import Episode
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.episodes.pools import WithOutOfScope
from nlpmeta.errors import NLPMetaError
from nlpmeta.evaluation.measure import Tables, measure
from nlpmeta.evaluation.protocols import CLINC_OOS, N_WAY, Tasks, TaskSize
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.metrics import calibration_error
from nlpmeta.metrics.scores import (
    EpisodeScore,
    Interval,
    confused_pairs,
    paired_difference,
    score_episode,
    score_episodes,
)


def right_and_wrong(episode, right):
    """A score with the first ``right`` query texts right and the others put into the next class."""
    labels = torch.tensor(episode.query.labels)
    guess = torch.where(torch.arange(len(labels)) < right, labels, (labels + 1) % episode.n_way)
    return EpisodeScore(episode, torch.eye(episode.n_way)[guess], 0.0)


def test_an_interval_is_the_t_interval_of_the_mean():
    values = [0.5, 0.6, 0.7, 0.9]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    interval = Interval.of(values)
    assert (interval.mean - interval.ci95, interval.mean + interval.ci95) == pytest.approx((low, high))


def test_one_value_has_no_interval_and_says_so():
    interval = Interval.of([0.84])
    assert math.isnan(interval.ci95)
    assert interval.json() == {"mean": 0.84, "ci95": None}
    assert interval.percent() == "84.0"


def test_percent_is_what_tables_show():
    assert Interval(0.8404, 0.0123).percent() == "84.0 ± 1.2"


def test_a_score_knows_its_accuracy_and_its_mistakes(sampler):
    episode = sampler.episode(0)
    score = right_and_wrong(episode, 12)
    assert score.accuracy == pytest.approx(12 / 15)
    names = episode.query.label_names
    true = names[episode.query.labels[-1]]
    assert confused_pairs([score, score]) == [(true, names[(names.index(true) + 1) % 3], 3)]  # texts, not times


def test_scores_are_probabilities_of_the_query_texts(encoder, sampler):
    score = score_episode(PrototypicalNetwork(encoder).eval(), sampler.episode(0))
    assert score.probabilities.shape == (15, 3)
    torch.testing.assert_close(score.probabilities.sum(1), torch.ones(15))
    assert score.out_of_scope is None


def test_embeddings_of_a_table_give_the_scores_of_the_encoder(encoder, sampler):
    learner = PrototypicalNetwork(encoder)
    plain = score_episodes(learner, sampler, 3)
    cached = score_episodes(learner, sampler, 3, embed=EmbeddingTable(encoder))
    for ours, theirs in zip(cached, plain, strict=True):
        torch.testing.assert_close(ours.probabilities, theirs.probabilities)


def test_texts_out_of_scope_are_scored_apart(encoder, sampler):
    plain = sampler.episode(0)
    with_outside = Episode(plain.support, plain.query, ("ball rice", "bank goal"))
    learner = PrototypicalNetwork(encoder).eval()
    score = score_episode(learner, with_outside)
    torch.testing.assert_close(score.probabilities, score_episode(learner, plain).probabilities)
    swapped = Episode(plain.support, plain.query.select([0, 1]), ("ball rice", "bank goal"))
    torch.testing.assert_close(score.out_of_scope, score_episode(learner, swapped).out_of_scope)


def test_a_constant_difference_is_certain():
    found = paired_difference([0.5, 0.6, 0.7], [0.6, 0.7, 0.8])
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.is_clear


def test_many_paired_differences_have_the_interval_of_the_normal_distribution():
    rng = np.random.default_rng(0)
    baseline = rng.normal(0.6, 0.3, 2000)
    other = baseline + rng.normal(0.02, 0.1, 2000)
    found = paired_difference(baseline, other)
    exact = Interval.of(other - baseline)
    assert found.mean == pytest.approx(exact.mean)
    assert (found.high - found.low) / 2 == pytest.approx(exact.ci95, rel=0.05)


def test_intervals_of_five_draws_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        found = paired_difference(np.zeros(5), rng.normal(0.3, 1.0, 5))
        hits += found.low <= 0.3 <= found.high
    assert 0.89 <= hits / 200 <= 0.99  # the plain percentile interval: 0.83


def test_a_difference_depends_on_the_pairing_and_not_on_chance():
    baseline, other = [0.1, 0.5, 0.9, 0.3], [0.2, 0.6, 0.8, 0.5]
    assert paired_difference(baseline, other) == paired_difference(baseline, other)
    assert paired_difference(baseline, other) != paired_difference(baseline, sorted(other))


def test_one_episode_shows_a_difference_without_an_interval():
    assert paired_difference([0.5], [0.7]).json() == {"mean": pytest.approx(0.2), "low": None, "high": None}
    assert paired_difference([0.5], [0.7]).percent() == "+20.0"


def test_differences_need_the_same_episodes():
    with pytest.raises(NLPMetaError, match="3 and 2"):
        paired_difference([0.1, 0.2, 0.3], [0.1, 0.2])


def tasks_of(sampler, n_episodes):
    texts = tuple({text: None for i in range(n_episodes) for text in sampler.episode(i).texts()})
    shape = TaskSize(n_way=3, n_shot=5, n_episodes=n_episodes, max_query=None, seed=0)
    return Tasks(shape=shape, sampler=sampler, n_episodes=n_episodes, n_ways=(3,), texts=texts)


def test_a_summary_is_the_mean_over_the_scores_of_single_episodes(encoder, sampler):
    learner = PrototypicalNetwork(encoder)
    found = measure({"mine": learner}, N_WAY, tasks_of(sampler, 4), tables=Tables())["mine"]
    scores = score_episodes(learner, sampler, 4)
    assert found.accuracies == pytest.approx([score.accuracy for score in scores])
    assert found.macro_f1s == pytest.approx([score.macro_f1 for score in scores])
    labels = [label for score in scores for label in score.episode.query.labels]
    table = torch.cat([score.probabilities for score in scores])
    assert found.calibration_error.mean == pytest.approx(calibration_error(labels, table), abs=1e-6)
    assert found.n_query == 15


def test_the_interval_of_the_calibration_error_is_the_jackknife(encoder, sampler):
    learner = PrototypicalNetwork(encoder)
    scores = score_episodes(learner, sampler, 4)
    left_out = []
    for out in range(4):
        kept = [score for i, score in enumerate(scores) if i != out]
        labels = [label for score in kept for label in score.episode.query.labels]
        left_out.append(calibration_error(labels, torch.cat([score.probabilities for score in kept])))
    error = math.sqrt(3 / 4 * sum((value - np.mean(left_out)) ** 2 for value in left_out))
    found = measure({"mine": learner}, N_WAY, tasks_of(sampler, 4), tables=Tables())["mine"]
    assert found.calibration_error.ci95 == pytest.approx(stats.t.ppf(0.975, 3) * error, abs=1e-6)


def test_methods_share_their_episodes_and_embeddings(encoder, sampler):
    tables = Tables()
    twins = {"one": PrototypicalNetwork(encoder), "two": PrototypicalNetwork(encoder)}
    found = measure(twins, N_WAY, tasks_of(sampler, 3), tables=tables)
    assert found["one"].accuracies == found["two"].accuracies
    gain, _ = found["two"].gain_over(found["one"])
    assert (gain.mean, gain.low, gain.high) == (0, 0, 0)
    assert tables.of(encoder).n_encoded == len(tasks_of(sampler, 3).texts)


def test_texts_out_of_scope_are_summed_up(encoder, sampler):
    outside = WithOutOfScope(sampler, ["ball rice", "bank goal", "match soup"])
    found = measure({"mine": PrototypicalNetwork(encoder)}, CLINC_OOS, tasks_of(outside, 3), tables=Tables())["mine"]
    assert 0 <= found.oos_auroc.mean <= 1
    assert 0 <= found.oos_recall.mean <= 1
