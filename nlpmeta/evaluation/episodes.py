"""Run a learner over episodes and say how well it did, with intervals."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nlpmeta.data import Episode
from nlpmeta.evaluation.intervals import Interval, Proportion
from nlpmeta.learners.base import Embed as Embed
from nlpmeta.learners.base import Learner, Texts
from nlpmeta.metrics import accuracy, macro_f1
from nlpmeta.progress import track
from nlpmeta.sampling import Sampler


@dataclass(frozen=True, eq=False)
class EpisodeScore:
    """What one learner did on one episode."""

    episode: Episode
    probabilities: Tensor
    """``(n_query, n_way)``."""
    adapt_seconds: float
    chosen: str | None = None
    """The head that was chosen, for a learner that chooses."""
    out_of_scope: Tensor | None = None
    """Probabilities of the texts out of scope, ``(n_out_of_scope, n_way)``, where the episode has any."""

    @property
    def predictions(self) -> list[int]:
        """The predicted class of each query text."""
        labels: list[int] = self.probabilities.argmax(1).tolist()
        return labels

    @property
    def accuracy(self) -> float:
        """The share of query texts that were classified right."""
        return accuracy(self.episode.query.labels, self.predictions)

    @property
    def macro_f1(self) -> float:
        """The unweighted mean of the F1 of the classes that occur."""
        return macro_f1(self.episode.query.labels, self.predictions)


@torch.no_grad()
def score_episode(
    learner: Learner, episode: Episode, embed: Embed | None = None, *, weights: Sequence[float] | None = None
) -> EpisodeScore:
    """Adapt to the support of ``episode`` and score its query and its texts out of scope.

    Args:
        learner: in evaluation mode.
        episode: the task.
        embed: where the embeddings come from, for a learner that works on embeddings; its own encoder by default.
        weights: how many texts each text of the support counts as, for a learner that uses it.
    """
    start = time.perf_counter()
    support = learner.support(episode.support, embed)
    if weights is not None:
        support = replace(support, weights=torch.tensor(weights, dtype=torch.float64, device=support.labels.device))
    state = learner.adapt(support)
    seconds = time.perf_counter() - start
    texts = episode.query.texts + episode.out_of_scope
    predictor = learner.predictor(state)
    probabilities = predictor.logits(Texts(texts, _features(learner, embed, texts))).softmax(1)
    n_query = len(episode.query)
    outside = probabilities[n_query:] if episode.out_of_scope else None
    return EpisodeScore(episode, probabilities[:n_query], seconds, predictor.choice, outside)


def score_episodes(
    learner: Learner, sampler: Sampler, n_episodes: int, *, embed: Embed | None = None, show_progress: bool = False
) -> list[EpisodeScore]:
    """``score_episode`` on episodes 0 to ``n_episodes - 1``."""
    learner.eval()
    scores = []
    with track("Episodes", n_episodes, show=show_progress) as advance:
        for index in range(n_episodes):
            scores.append(score_episode(learner, sampler.episode(index), embed))
            advance(1)
    return scores


def accuracy_over(scores: Sequence[EpisodeScore], *, pooled: bool) -> Interval | Proportion:
    """The mean accuracy of episodes, or with ``pooled`` (no text is scored twice) the share of all their texts."""
    if not pooled:
        return Interval.of([score.accuracy for score in scores])
    right = sum(
        true == guess
        for score in scores
        for true, guess in zip(score.episode.query.labels, score.predictions, strict=True)
    )
    return Proportion(right, sum(len(score.episode.query) for score in scores))


def confused_pairs(scores: Sequence[EpisodeScore], most: int = 5) -> list[tuple[str, str, int]]:
    """The pairs (true label, predicted label) that were mistaken most often, with the number of texts.

    A text that several episodes mistook for the same class counts once.
    """
    from collections import Counter

    mistaken = {
        (score.episode.query.label_names[true], score.episode.query.label_names[guess], text)
        for score in scores
        for text, true, guess in zip(
            score.episode.query.texts, score.episode.query.labels, score.predictions, strict=True
        )
        if true != guess
    }
    pairs = Counter((true, guess) for true, guess, _ in mistaken)
    return [(true, guess, count) for (true, guess), count in sorted(pairs.items(), key=lambda p: (-p[1], p[0]))[:most]]


def _features(learner: Learner, embed: Embed | None, texts: tuple[str, ...]) -> Tensor | None:
    return embed(texts) if embed is not None and learner.inputs == "embeddings" else None
