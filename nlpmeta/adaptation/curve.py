"""How accuracy grows with the number of examples: the draws of a trial with fewer of the same support texts."""

from collections.abc import Sequence
from dataclasses import dataclass

from nlpmeta.data import Episode
from nlpmeta.evaluation import EpisodeScore, Interval, Proportion, accuracy_over
from nlpmeta.evaluation.episodes import score_episode
from nlpmeta.learners.base import Embed, Learner


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy over the draws with ``n_shot`` support texts of each class."""

    n_shot: int
    accuracy: Interval | Proportion


def learning_curve(
    learner: Learner, scores: Sequence[EpisodeScore], *, embed: Embed, pooled: bool = False
) -> list[CurvePoint]:
    """Accuracy with one, with half and with all of the support texts of each class, on the same queries.

    The smaller supports are the first texts of each class of the larger ones, so the points differ by nothing else.
    Empty where the classes of a draw have unlike numbers of texts, or one.

    Args:
        learner: in evaluation mode.
        scores: what the trial found with all of them.
        embed: where the embeddings come from.
        pooled: whether no text is scored twice.
    """
    counts = {count for score in scores for count in score.episode.support.counts().values()}
    if len(counts) != 1 or min(counts) < 2:
        return []
    (most,) = counts
    points = []
    for n_shot in sorted({1, most // 2}):
        smaller = [score_episode(learner, _fewer(score.episode, n_shot), embed) for score in scores]
        points.append(CurvePoint(n_shot, accuracy_over(smaller, pooled=pooled)))
    return [*points, CurvePoint(most, accuracy_over(scores, pooled=pooled))]


def _fewer(episode: Episode, n_shot: int) -> Episode:
    seen: dict[int, int] = {}
    rows = []
    for row, label in enumerate(episode.support.labels):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= n_shot:
            rows.append(row)
    return Episode(episode.support.select(rows), episode.query, episode.out_of_scope)
