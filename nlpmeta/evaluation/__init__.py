"""Run a learner over episodes and say how well it did, with intervals."""

from nlpmeta.evaluation.episodes import (
    Embed,
    EpisodeScore,
    accuracy_over,
    confused_pairs,
    score_episode,
    score_episodes,
)
from nlpmeta.evaluation.intervals import Difference, Interval, Proportion, paired_difference, says_little
from nlpmeta.evaluation.saved import Answers, Pair, compare, match_labels

__all__ = [
    "Answers",
    "Difference",
    "Embed",
    "EpisodeScore",
    "Interval",
    "Pair",
    "Proportion",
    "accuracy_over",
    "compare",
    "confused_pairs",
    "match_labels",
    "paired_difference",
    "says_little",
    "score_episode",
    "score_episodes",
]
