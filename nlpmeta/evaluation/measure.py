"""Score several methods on the same episodes, each text embedded once, and sum up what came out."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING
from typing import Protocol as PythonProtocol

import numpy as np

from nlpmeta.data import Episode
from nlpmeta.data.multilabel import MultiLabelTexts
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.encoder.tokenizing import Cut, cut_of
from nlpmeta.episodes.index import MultiLabelDraw
from nlpmeta.evaluation.protocols import Protocol, Tasks
from nlpmeta.evaluation.results import Summary
from nlpmeta.learners.abilities import TakesBudget
from nlpmeta.learners.base import Embed, Learner
from nlpmeta.learners.streams import score_stream
from nlpmeta.metrics import (
    OUT_OF_SCOPE,
    Bins,
    calibration_bins,
    macro_f1_of_each,
    oos_auroc,
    oos_recall,
    several_bins,
    several_scores,
)
from nlpmeta.metrics.scores import EpisodeScore, Interval, Proportion, accuracy_over, pooled_error, score_episode
from nlpmeta.progress import track

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Tables:
    """One embedding table for each encoder, shared by the methods that use it and kept from one evaluation to the next.

    ``folder`` is where embeddings are kept between runs; ``None`` keeps them in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._tables: dict[int, EmbeddingTable] = {}

    def of(self, encoder: TextEncoder) -> EmbeddingTable:
        """The table of ``encoder``, which it holds on to."""
        if id(encoder) not in self._tables:
            self._tables[id(encoder)] = EmbeddingTable(encoder, self._folder)
        return self._tables[id(encoder)]

    def primed(
        self, methods: Mapping[str, Learner], texts: Sequence[str], *, show_progress: bool
    ) -> dict[str, EmbeddingTable | None]:
        """The table of each method, with ``texts`` in it; ``None`` for one that embeds its texts itself."""
        found = {
            name: self.of(learner.eval().encoder) if learner.inputs == "embeddings" else None
            for name, learner in methods.items()
        }
        for table in found.values():
            if table is not None:
                table.prime(texts, show_progress=show_progress)
        return found


@dataclass
class Tally:
    """The scores of one method, episode by episode."""

    in_scope_accuracy: float | None
    accuracy: list[float] = field(default_factory=list)
    labels: "list[tuple[NDArray[np.int64], NDArray[np.int64]]]" = field(default_factory=list)
    bins: list[Bins] = field(default_factory=list)
    auroc: list[float] = field(default_factory=list)
    recall: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, score: EpisodeScore) -> None:
        """Take one episode in; only what the summary needs is kept."""
        truth = np.asarray(score.episode.query.labels)
        probabilities = score.probabilities.double().cpu().numpy()
        self.note(truth, probabilities)
        self.seconds.append(score.adapt_seconds)
        if score.out_of_scope is not None:
            outside = score.out_of_scope.double().cpu().numpy()
            table = np.concatenate([probabilities, outside])
            labels = np.concatenate([truth, np.full(len(outside), OUT_OF_SCOPE)])
            self.auroc.append(oos_auroc(labels, table))
            if self.in_scope_accuracy is not None:
                self.recall.append(oos_recall(labels, table, in_scope_accuracy=self.in_scope_accuracy))

    def note(self, truth: "NDArray[np.int64]", probabilities: "NDArray[np.float64]") -> None:
        """Take in true labels ``(n,)`` and what was predicted, ``(n, n_way)``."""
        predictions = probabilities.argmax(1)
        self.accuracy.append(float((predictions == truth).mean()))
        self.labels.append((truth, predictions))
        self.bins.append(calibration_bins(truth, probabilities))

    def summary(self) -> "Summary":
        """All of it, summed up."""
        n_query = round(float(np.mean([len(truth) for truth, _ in self.labels])))
        return Summary(
            accuracies=tuple(self.accuracy),
            macro_f1s=tuple(macro_f1_of_each(self.labels)),
            calibration_error=pooled_error(np.stack(self.bins)),
            oos_auroc=Interval.of(self.auroc) if self.auroc else None,
            oos_recall=Interval.of(self.recall) if self.recall else None,
            n_query=n_query,
            adapt_seconds=float(np.mean(self.seconds)),
        )


def measure(
    methods: Mapping[str, Learner],
    protocol: Protocol,
    tasks: Tasks,
    *,
    tables: Tables,
    show_progress: bool = False,
) -> dict[str, Summary]:
    """Score every method on every episode of ``tasks``.

    Args:
        methods: learners by name; those that work on embeddings read them from ``tables``.
        protocol: what the tasks were drawn by.
        tasks: the episodes.
        tables: embeddings that are known already.
        show_progress: progress bars on standard error.
    """
    embeds = tables.primed(methods, tasks.texts, show_progress=show_progress)
    tallies = {name: Tally(protocol.in_scope_accuracy) for name in methods}
    small = all(table is not None for table in embeds.values())
    with track("Episodes", tasks.n_episodes, show=show_progress) as advance, _threads(1 if small else None):
        for index in range(tasks.n_episodes):
            episode = tasks.sampler.episode(index)
            for name, learner in methods.items():
                tallies[name].add(score_episode(learner, episode, embeds[name]))
            advance(1)
    return {name: tally.summary() for name, tally in tallies.items()}


class GivesProbabilities(PythonProtocol):
    """What was learned from one support: probabilities ``(n, n_labels)`` and the least of each label to be given."""

    def __call__(self, texts: Sequence[str]) -> "tuple[NDArray[np.floating], NDArray[np.floating]]": ...


def measure_several(
    methods: Mapping[str, Callable[[MultiLabelTexts], GivesProbabilities]],
    draws: Sequence[MultiLabelDraw],
    *,
    show_progress: bool = False,
) -> dict[str, Summary]:
    """Score every method on every draw where texts have several labels.

    Args:
        methods: by name what learns from a support; the embeddings of all texts are known.
        draws: what to learn from and what to score on.
        show_progress: progress bars on standard error.
    """
    found: dict[str, list[tuple[dict[str, float], Bins, float]]] = {name: [] for name in methods}
    with track("Episodes", len(draws), show=show_progress) as advance, one_thread():
        for draw in draws:
            marks = draw.query.matrix()
            for name, learn in methods.items():
                start = perf_counter()
                answer = learn(draw.support)
                seconds = perf_counter() - start
                table, least = answer(draw.query.texts)
                found[name].append((several_scores(marks, table, table >= least), several_bins(marks, table), seconds))
            advance(1)
    n_query = round(float(np.mean([len(draw.query) for draw in draws])))
    return {
        name: Summary(
            accuracies=tuple(scores["exact_match"] for scores, _, _ in each),
            macro_f1s=tuple(scores["macro_f1"] for scores, _, _ in each),
            calibration_error=pooled_error(np.stack([bins for _, bins, _ in each])),
            oos_auroc=None,
            oos_recall=None,
            n_query=n_query,
            adapt_seconds=float(np.mean([seconds for _, _, seconds in each])),
            several=tuple(scores for scores, _, _ in each),
        )
        for name, each in found.items()
    }


def cuts_of(methods: Mapping[str, Learner], texts: Sequence[str]) -> dict[str, Cut]:
    """For each method, how many of ``texts`` its encoder truncates; counted once where encoders read alike."""
    encoders = {name: learner.encoder for name, learner in methods.items()}
    reads = {name: (id(each.tokenizer), each.prefix, each.max_length, each.window) for name, each in encoders.items()}
    cuts = {how: cut_of(encoder, texts) for how, encoder in {reads[name]: encoders[name] for name in reads}.items()}
    return {name: cuts[how] for name, how in reads.items()}


def cuts_said(cuts: Mapping[str, Cut], lang: str | None) -> list[str]:
    """A note on truncated texts for each number of them; language and methods are named if there are several."""
    methods: dict[Cut, list[str]] = {}
    for name, cut in cuts.items():
        methods.setdefault(cut, []).append(name)
    where = [] if lang is None else [lang]
    return [
        ": ".join(["Note", *where, *([", ".join(names)] if len(methods) > 1 else []), cut.message("--max-length")])
        for cut, names in methods.items()
        if cut.n_cut
    ]


def one_thread() -> AbstractContextManager[object]:
    """One thread inside the block, see ``_threads``."""
    return _threads(1)


def _threads(limit: int | None) -> AbstractContextManager[object]:
    """At most so many threads inside the block; ``None`` changes nothing.

    Heads on embeddings work on matrices so small that a second thread is only waited for: on a busy machine an episode
    took 20 ms with two threads and 1 ms with one.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=limit)  # type: ignore[no-any-return]  # threadpoolctl is not typed


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
    Empty where the classes of a draw have unlike numbers of texts, or one, and where each point would be fine-tuned.

    Args:
        learner: in evaluation mode.
        scores: what the trial found with all of them.
        embed: where the embeddings come from.
        pooled: whether no text is scored twice.
    """
    counts = {count for score in scores for count in score.episode.support.counts().values()}
    if len(counts) != 1 or min(counts) < 2 or (isinstance(learner, TakesBudget) and learner.budget):
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


def measure_streams(
    methods: Mapping[str, Learner], tasks: Tasks, *, tables: Tables, show_progress: bool = False
) -> dict[str, dict[int, Summary]]:
    """What every method reached on the streams of ``tasks`` at each presentation.

    Args:
        methods: learners by name; those that work on embeddings read them from ``tables``.
        tasks: the streams.
        tables: embeddings that are known already.
        show_progress: progress bars on standard error.
    """
    embeds = tables.primed(methods, tasks.texts, show_progress=show_progress)
    tallies: dict[str, dict[int, Tally]] = {name: {} for name in methods}
    with track("Streams", tasks.n_episodes, show=show_progress) as advance, one_thread():
        for index in range(tasks.n_episodes):
            episode = tasks.sampler.episode(index)
            for name, learner in methods.items():
                score = score_stream(learner, episode, embeds[name])
                for presentation in range(1, int(score.presentations.max()) + 1):
                    rows = score.presentations == presentation
                    tally = tallies[name].setdefault(presentation, Tally(None))
                    tally.note(score.labels[rows].numpy(), score.probabilities[rows].double().numpy())
                    tally.seconds.append(score.write_seconds)
            advance(1)
    return {name: {k: tally.summary() for k, tally in found.items()} for name, found in tallies.items()}
