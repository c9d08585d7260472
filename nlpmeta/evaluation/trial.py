"""Adapt on several draws of the support set, score each on the rest, and compare with the plain baseline."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.encoder.compiling import compiled_engine, compiled_form
from nlpmeta.encoder.engines import Engine
from nlpmeta.encoder.lora import has_adapter
from nlpmeta.encoder.table import EmbeddingTable, embeddings_folder
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.encoder.tokenizing import Cut, cut_texts
from nlpmeta.encoder.views import FROZEN, ScaledEncoder
from nlpmeta.episodes import Sampler
from nlpmeta.episodes.kshot import FoldSampler, KShotSampler, NamesAlone
from nlpmeta.errors import NLPMetaError
from nlpmeta.evaluation.measure import CurvePoint, learning_curve
from nlpmeta.learners.base import Embed, Learner, learners
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.metrics import calibration_error, macro_f1
from nlpmeta.metrics.scores import EpisodeScore, Interval, Proportion, accuracy_over, confused_pairs, score_episodes

MOST_FOLDS = 5
_MOST_NAMED = 5  # classes, in a line


@dataclass
class Stopwatch:
    """Seconds by the name of the stage."""

    seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=perf_counter)

    def stop(self) -> None:
        """Note the time since it was made as the total."""
        self.seconds["total"] = perf_counter() - self.started

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start


@dataclass(frozen=True)
class Task:
    """What to learn from and what to score on: a sampler of draws, and the support that the saved model gets.

    ``scored_on`` says in words where the query texts come from.
    """

    sampler: Sampler
    n_draws: int
    support: LabeledTexts
    scored_on: str
    left_out: dict[str, int]
    is_whole: bool = False
    """Whether the support is all there is, although something else is scored."""

    @classmethod
    def of(cls, sampler: KShotSampler, *, n_draws: int, seed: int) -> "Task":
        """Score each draw on what it leaves over; where it leaves nothing, cross-validate the support itself.

        Raises:
            NLPMetaError: if ``n_draws`` is not positive.
        """
        if n_draws < 1:
            raise NLPMetaError(f"At least 1 draw is needed; got {n_draws}.")
        if sampler.has_query():
            first = sampler.episode(0)
            if _draws_agree(sampler, first, n_draws):
                n_draws = 1
            where = "the test file" if sampler.test is not None else "the rest of the data"
            is_whole = len(first.support) == len(sampler.everything())
            return cls(sampler, n_draws, first.support, where, sampler.left_out, is_whole)
        support = sampler.everything()
        folds = FoldSampler.at_most(support, MOST_FOLDS, seed=seed)
        if folds is None:
            nothing = "nothing: one example of each class is all there is, but for case and digits"
            return cls(sampler, 0, support, nothing, {})
        n_folds = folds.n_folds
        where = f"{n_folds}-fold cross-validation: all examples are in the support"
        if folds.never_scored:
            named, more = folds.never_scored[:_MOST_NAMED], len(folds.never_scored) - _MOST_NAMED
            where += f"; never scored, with one example: {', '.join(named)}" + (f" and {more} more" if more > 0 else "")
        return cls(folds, n_folds, support, where, {})

    @classmethod
    def of_names(cls, pool: LabeledTexts, test: LabeledTexts | None) -> "Task":
        """Score what the names of the classes alone say, on ``test`` or on all of ``pool``."""
        sampler, where = NamesAlone(pool, test=test), "all of the data" if test is None else "the test file"
        return cls(sampler, 1, sampler.episode(0).support, where, sampler.left_out)

    @property
    def uses_all_examples(self) -> bool:
        """Whether every example is in the support of the saved model."""
        return self.n_draws == 0 or self.is_whole or isinstance(self.sampler, FoldSampler)

    @property
    def n_folds(self) -> int | None:
        """The number of folds, where the support itself is cross-validated."""
        return self.n_draws if isinstance(self.sampler, FoldSampler) else None

    @property
    def scores_texts_once(self) -> bool:
        """Whether no text is scored twice, so that figures are shares of texts: one draw, or folds."""
        return self.n_draws == 1 or self.n_folds is not None

    def episodes(self) -> list[Episode]:
        """Every draw."""
        return [self.sampler.episode(index) for index in range(self.n_draws)]

    def texts(self) -> list[str]:
        """The distinct texts of the model's support and of every draw."""
        parts: Iterable[tuple[str, ...]] = (episode.texts() for episode in self.episodes())
        return list(dict.fromkeys([*self.support.texts, *(text for part in parts for text in part)]))


@dataclass(frozen=True)
class Measured:
    """One method over all draws; empty where there was nothing to score on.

    With ``pooled`` no text is scored twice, and the figures are those of all texts together; else they are means over
    draws.
    """

    method: str
    scores: list[EpisodeScore]
    pooled: bool = False

    @property
    def accuracy(self) -> Interval | Proportion | None:
        """A share of texts, or the mean over the draws."""
        return accuracy_over(self.scores, pooled=self.pooled) if self.scores else None

    @property
    def macro_f1(self) -> Interval | None:
        """Macro-F1 of all texts, or the mean over the draws."""
        if not self.scores:
            return None
        if self.pooled:
            return Interval(macro_f1(*_pooled_labels(self.scores)), math.nan)
        return Interval.of([score.macro_f1 for score in self.scores])

    @property
    def calibration_error(self) -> float | None:
        """The expected calibration error of all texts, or the mean over the draws; ``None`` without any."""
        if not self.scores:
            return None
        if self.pooled:
            probabilities = np.concatenate([score.probabilities.double().cpu().numpy() for score in self.scores])
            return calibration_error(_pooled_labels(self.scores)[0], probabilities)
        errors = [calibration_error(score.episode.query.labels, score.probabilities) for score in self.scores]
        return float(sum(errors) / len(errors))

    def confused(self) -> list[tuple[str, str, int]]:
        """The five most mistaken pairs (true, predicted, texts)."""
        return confused_pairs(self.scores)


def _pooled_labels(scores: list[EpisodeScore]) -> tuple[list[int], list[int]]:
    """The true and the predicted labels of all scored texts."""
    true = [label for score in scores for label in score.episode.query.labels]
    return true, [label for score in scores for label in score.predictions]


@dataclass(frozen=True)
class Trial:
    """What ``adapt`` found out: the method and the baseline on the same draws."""

    task: Task
    method: Measured
    baseline: Measured
    curve: list[CurvePoint] = field(default_factory=list)
    """Accuracy over the number of examples of each class, where that was measured."""
    cut: Cut | None = None
    """How many of the distinct texts of all draws are longer than the encoder reads, where that was counted."""

    @property
    def n_query(self) -> int:
        """Scored predictions of all draws together."""
        return sum(len(score.episode.query) for score in self.method.scores)

    @property
    def n_texts(self) -> int:
        """Different texts that were scored."""
        return len({text for score in self.method.scores for text in score.episode.query.texts})

    @property
    def scored(self) -> str:
        """What the figures are figures of, in words."""
        texts = "1 text" if self.n_texts == 1 else f"{self.n_texts} texts"
        if self.task.n_folds is not None:
            rows = texts if self.n_query == self.n_texts else f"{self.n_query} examples ({texts})"
            return f"{self.task.n_folds} folds, {rows}, each scored once"
        if self.task.n_draws == 1:
            return f"one run, {texts}"
        return f"{self.task.n_draws} draws, {self.n_query} predictions for {texts}"

    @property
    def frozen_is_better(self) -> bool:
        """Whether plain logistic regression on the frozen encoder scored higher on the same draws."""
        ours, plain = self.method.accuracy, self.baseline.accuracy
        return ours is not None and plain is not None and plain.mean > ours.mean

    @property
    def chosen(self) -> list[str]:
        """The heads that the method chose over the draws, where it is one that chooses."""
        return sorted({score.chosen for score in self.method.scores if score.chosen})

    @property
    def chance(self) -> float:
        """The accuracy of guessing."""
        return 1 / self.task.support.n_way


def run_trial(
    learner: Learner, task: Task, *, method: str, table: EmbeddingTable, watch: Stopwatch, show_progress: bool = False
) -> Trial:
    """Score ``learner`` and logistic regression on the frozen encoder on every draw of ``task``.

    Without examples the baseline is the nearest name on the frozen encoder.

    Args:
        learner: the method under trial.
        task: the draws.
        method: what to call the method.
        table: embeddings of the learner's encoder, each text computed once.
        watch: where the seconds of the stages go.
        show_progress: progress bars on standard error.
    """
    texts = task.texts()
    with cut_texts() as found:
        if learner.inputs == "embeddings":  # others read tokens and would not use the table
            with watch.stage("encode"):
                table.prime(texts, show_progress=show_progress)
        with watch.stage("adapt_and_score"):
            scores = score_episodes(learner, task.sampler, task.n_draws, embed=table, show_progress=show_progress)
        with watch.stage("learning_curve"):
            curve = learning_curve(learner, scores, embed=table, pooled=task.scores_texts_once)
        with watch.stage("baseline"):
            encoder, frozen = frozen_view(learner.encoder, table)
            if isinstance(frozen, EmbeddingTable):
                frozen.prime(texts, show_progress=show_progress)
            plain: Learner = LogisticHead(encoder)
            if task.support.by_name:
                plain = PrototypicalNetwork(encoder, metric="cosine")
            baseline = score_episodes(plain, task.sampler, task.n_draws, embed=frozen)
    cut = Cut.of(learner.encoder, texts, found)
    pooled = task.scores_texts_once
    return Trial(
        task, Measured(method, scores, pooled), Measured(learners.name_of(type(plain)), baseline, pooled), curve, cut
    )


def kept_table(learner: Learner, engine: Engine, used: set[Engine]) -> EmbeddingTable:
    """Embeddings that the next run on the same texts finds on disk, if ``learner`` learns from embeddings.

    Args:
        learner: whose encoder embeds.
        engine: what it embeds by.
        used: gets the name of the engine if it is a compiled one.
    """
    if learner.inputs != "embeddings":
        return EmbeddingTable(learner.encoder)
    compiled = compiled_form(learner.encoder, engine)
    if compiled is not None:
        used.add(compiled_engine(engine))
    return EmbeddingTable(learner.encoder, embeddings_folder(), compiled=compiled)


def frozen_view(encoder: TextEncoder, table: EmbeddingTable) -> tuple[TextEncoder, Embed]:
    """The encoder without its adapters, and its embeddings: out of ``table`` where they are part of what it holds."""
    if not has_adapter(encoder):
        return encoder, table
    if isinstance(encoder, ScaledEncoder) and FROZEN in encoder.scales:
        columns = encoder.columns(FROZEN)
        return encoder.select([FROZEN]), lambda texts: table(texts)[:, columns]
    frozen = ScaledEncoder(encoder, [FROZEN])
    return frozen, EmbeddingTable(frozen)


def _draws_agree(sampler: KShotSampler, first: Episode, n_draws: int) -> bool:
    """Whether every draw takes the same support and is scored on the same texts, so that one says all."""

    def rows(part: LabeledTexts) -> list[tuple[str, str]]:
        return sorted(zip(part.texts, part.names(), strict=True))

    support, query = rows(first.support), rows(first.query)
    others = (sampler.episode(index) for index in range(1, n_draws))
    return all(rows(other.support) == support and rows(other.query) == query for other in others)
