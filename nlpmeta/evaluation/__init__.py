"""Run a learner over episodes and say how well it did, with intervals."""

from nlpmeta.evaluation.episodes import (
    Embed,
    EpisodeScore,
    chance_level,
    confused_pairs,
    score_episode,
    score_episodes,
)
from nlpmeta.evaluation.intervals import Difference, Interval, paired_difference

__all__ = [
    "Difference",
    "Embed",
    "EpisodeScore",
    "Interval",
    "chance_level",
    "confused_pairs",
    "paired_difference",
    "score_episode",
    "score_episodes",
]
