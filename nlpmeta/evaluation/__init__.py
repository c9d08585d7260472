"""Adapt and measure, and evaluate methods: what ``nlpmeta adapt`` and ``nlpmeta evaluate`` do, as functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nlpmeta.auto.answers import adapted_with_report, expecting, gives_report, most_worth_labelling
from nlpmeta.auto.diagnosis import tuned_share
from nlpmeta.auto.mismatch import TaskReport
from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.data.inputs import checked_class_prior, holds_pairs, parsed_class_prior
from nlpmeta.data.labels import one_but_for_case
from nlpmeta.data.multilabel import perhaps_several
from nlpmeta.encoder.compiling import embedding_with
from nlpmeta.encoder.parts import Longer
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.episodes import fingerprint
from nlpmeta.evaluation.protocols import KSHOT_ALL, Protocol, TaskSize, Ways
from nlpmeta.evaluation.request import AdaptRequest, Material, Say
from nlpmeta.evaluation.results import Row
from nlpmeta.evaluation.runs import DataChoice, ProtocolRun
from nlpmeta.evaluation.trial import Stopwatch, Trial, kept_table, run_trial
from nlpmeta.learners.abilities import check_described, check_pairs
from nlpmeta.learners.base import Learner, Texts
from nlpmeta.learners.start import of_pairs
from nlpmeta.metrics.scores import Interval, Proportion, says_little
from nlpmeta.progress import bars_within
from nlpmeta.storage.files import Json

MOST_SUGGESTED = 10


@dataclass(frozen=True, eq=False)
class AdaptReport:
    """A classifier, and what was measured and noticed while it was made.

    Attributes:
        request: what was requested.
        classifier: of all examples, or of the first draw.
        trial: accuracy and macro-F1 with 95 % intervals, those of the baseline, the learning curve.
        task_report: what the support set says of the task; ``None`` for a method that it is not known for.
        label_next: the texts to label next, where that was requested, the most useful first.
        material: the examples.
        longer: how much of a text is read, where that was chosen as texts of the support are long.
        engine: what embedded the texts: ``torch``, ``onnx`` or ``onnx-int8``, or several of them.
    """

    request: AdaptRequest
    classifier: FewShotClassifier
    trial: Trial
    task_report: TaskReport | None
    label_next: tuple[str, ...] | None
    material: Material
    longer: Longer | None = None
    engine: str = "torch"

    def json(self, folder: Path | None = None) -> dict[str, Json]:
        """The object that ``nlpmeta adapt --json`` prints, and ``report.json``; shares are fractions of 1.

        Args:
            folder: where the model is saved.
        """
        facts, watch = self.request.facts(self.material.pool.digest()), self.material.watch
        lang = self.material.lang(self.request.lang)
        found = trial_json(self.trial, task=facts, lang=lang, folder=folder, watch=watch, found=self.task_report)
        found |= self.material.json() | {"engine": self.engine}
        if self.longer is not None:
            found["longer"] = {**self.longer.json()}
        if self.label_next is not None:
            found["label_next"] = list(self.label_next)
        return found


def adapt_and_measure(
    request: AdaptRequest, *, material: Material | None = None, show_progress: bool = False, say: Say | None = None
) -> AdaptReport:
    """Adapt to a few labelled examples, measure it over several draws, and say what the support set says of the task.

    The support set (``n_shot`` examples of each class) is drawn from the data and the rest is scored; this is repeated
    over ``n_draws`` different support sets, or once where there is only one. The classifier is that of the first draw,
    or of all examples. Nothing is written.

    Args:
        request: what to adapt to and how.
        material: the examples, where ``Material.of(request)`` has read them already.
        show_progress: progress bars on standard error.
        say: called with each note, a line at a time.

    Raises:
        NLPMetaError: if the data, the encoder or the checkpoint cannot be used, or do not go together.
    """
    read = Material.of(request, say=say) if material is None else material
    watch, task = read.watch, read.task
    with watch.stage("import_and_load"):
        learner = _learner(request, read)
        check_described(learner, task.support)
    if say is not None and learner.encoder.files is not None:
        say(learner.encoder.files.description)
    learner, longer = request.reading(learner, task.support.texts, len(task.texts()), say=say)
    supports = [task.support, *(episode.support for episode in task.episodes())]
    learner = request.budgeted(learner, supports, say=say)
    with embedding_with(request.engine) as used, bars_within(show=show_progress):
        table = kept_table(learner, request.engine, used)
        told = _told_how_often(learner, request, read)
        trial = run_trial(told, task, method=request.method, table=table, watch=watch, show_progress=show_progress)
        support, state, found = task.support, None, None
        if gives_report(told):
            with watch.stage("look_at_the_support"):
                support, state, found = adapted_with_report(told.eval(), support, embed=table)
        classifier = FewShotClassifier.adapted(learner, support, embed=table, state=state)
        next_ones = None if read.candidates is None else _suggested(classifier, read, table)
    if say is not None and (share := tuned_share(classifier.state_)) is not None:
        say(f"Note: {share}")
    watch.stop()
    engine = ", ".join(sorted(used if learner.inputs == "embeddings" else {*used, "torch"})) or "torch"
    return AdaptReport(request, classifier, trial, found, next_ones, read, longer, engine)


def evaluate(
    methods: Mapping[str, Learner],
    data: str | DataChoice,
    *,
    lang: str | None = None,
    protocol: Protocol = KSHOT_ALL,
    n_shots: Sequence[int] | None = None,
    n_ways: Sequence[Ways] | None = None,
    n_episodes: int | None = None,
    max_query: int | None = None,
    seed: int | None = None,
) -> list[Row]:
    """Score learners on the same episodes of a data set.

    Where its texts have several labels, accuracy is that of exact matches, and ``summary.several`` holds the figures of
    each draw; learners of ``auto`` and ``logistic`` (one-vs-rest) can be scored, by ``KSHOT_ALL``.

    Args:
        methods: learners by the name that their rows get; differences are to the first one.
        data: a name or file as ``load_source`` takes it, or a ``DataChoice`` to say more.
        lang: a code or name in any spelling; ``None`` takes all texts.
        protocol: one of ``nlpmeta.evaluation.protocols``.
        n_shots: support texts of each class; as the protocol says by default, like all that follow.
        n_ways: classes of an episode.
        n_episodes: episodes, of each fold where there are folds.
        max_query: query texts at most.
        seed: decides what is drawn.

    Returns:
        A row for each number of ways, of shots, and method.

    Raises:
        NLPMetaError: if a split, a language or a size does not fit; the message says which.
    """
    shapes = shapes_of(protocol, n_shots=n_shots, n_ways=n_ways, n_episodes=n_episodes, max_query=max_query, seed=seed)
    run = ProtocolRun(
        protocol=protocol, methods=methods, choice=data if isinstance(data, DataChoice) else DataChoice(data=data)
    )
    return [row for rows in run.rows([lang], shapes) for row in rows]


def shapes_of(
    protocol: Protocol,
    *,
    n_shots: Sequence[int] | None,
    n_ways: Sequence[Ways] | None,
    n_episodes: int | None,
    max_query: int | None,
    seed: int | None,
) -> list[TaskSize]:
    """The sizes of tasks that were requested, one for each number of ways and shots.

    Raises:
        NLPMetaError: if the protocol does not allow them.
    """
    ways, shots = tuple(n_ways or protocol.n_ways), tuple(n_shots or protocol.n_shots)
    protocol.check(ways, shots)
    return [
        TaskSize(
            n_way=n_way,
            n_shot=n_shot,
            n_episodes=protocol.n_episodes if n_episodes is None else n_episodes,
            max_query=protocol.max_query if max_query is None else max_query,
            seed=protocol.seed if seed is None else seed,
        )
        for n_way in ways
        for n_shot in shots
    ]


def trial_json(
    trial: Trial,
    *,
    task: Mapping[str, Json],
    lang: str | None,
    folder: Path | None,
    watch: Stopwatch,
    found: TaskReport | None = None,
) -> dict[str, Json]:
    """What was measured, for programs."""
    return {
        "data": task["data"],
        "lang": lang,
        "method": trial.method.method,
        "chosen": trial.chosen,
        "n_way": trial.task.support.n_way,
        "n_shot": task["shots"],
        "draws": None if trial.task.n_folds else len(trial.method.scores),
        "folds": trial.task.n_folds,
        "scored": trial.scored if trial.method.scores else None,
        "n_texts": trial.n_texts,
        "accuracy": _interval(trial.method.accuracy),
        "macro_f1": _interval(trial.method.macro_f1),
        "chance": trial.chance,
        "baseline": {
            "method": trial.baseline.method,
            "accuracy": _interval(trial.baseline.accuracy),
            "macro_f1": _interval(trial.baseline.macro_f1),
        },
        "calibration_error": trial.method.calibration_error,
        "curve": [{"n_shot": point.n_shot, "accuracy": point.accuracy.json()} for point in trial.curve],
        "n_support": len(trial.task.support),
        "n_query": trial.n_query,
        "scored_on": trial.task.scored_on,
        "left_out": dict(trial.task.left_out),
        "confused": [[true, guess, times] for true, guess, times in trial.method.confused()],
        "cut": None if trial.cut is None else trial.cut.json(),
        "notes_on_figures": notes_on_figures(trial, found),
        "task_report": None if found is None else found.json(),
        "seconds": {stage: round(seconds, 3) for stage, seconds in watch.seconds.items()},
        "out": None if folder is None else str(folder),
        "task": dict(task),
    }


def notes_on_figures(trial: Trial, found: TaskReport | None) -> list[str]:
    """What to know of the classes, whether the figures say little, and which accuracy to rely on."""
    names = trial.task.support.label_names
    return [*one_but_for_case(names), *perhaps_several(names), *_on_accuracy(trial, found)]


def _on_accuracy(trial: Trial, found: TaskReport | None) -> list[str]:
    if not trial.method.scores:
        return []
    few = says_little(trial.n_texts)
    notes = [] if few is None else [few]
    if found is None or found.expected is None:
        return notes
    if found.warns:
        return [*notes, "trust the warning and the measured accuracy; the expected one assumes a sound task"]
    if trial.task.n_folds is not None:
        why = "it starts from held-out examples like the measured one, and knows what other tasks of this size reached"
        return [*notes, f"trust the expected accuracy over the measured one: {why}"]
    if few is not None:
        why = f"it rests on many other tasks of this size, the measured one on {trial.n_texts} texts"
        return [*notes, f"trust the expected accuracy over the measured one: {why}"]
    why = f"it is of {trial.n_texts} texts of this task, the expected one is of the saved model's support set alone"
    return [f"trust the measured accuracy over the expected one: {why}"]


def _interval(interval: Interval | Proportion | None) -> Json:
    return {"mean": None, "ci95": None} if interval is None else interval.json()


def _learner(request: AdaptRequest, read: Material) -> Learner:
    """The learner that is started from, which reads pairs where the data holds pairs of texts.

    Raises:
        NLPMetaError: if it takes no pairs.
    """
    learner = request.learner()
    if holds_pairs(read.pool.texts):
        learner = of_pairs(learner)
        check_pairs(learner, read.task.support)
    return learner


def _told_how_often(learner: Learner, request: AdaptRequest, read: Material) -> Learner:
    """The learner that knows how often the classes occur, where that was said."""
    if request.class_prior is None:
        return learner
    names = read.task.support.label_names
    said = parsed_class_prior(request.class_prior, word="data", counts=read.pool.with_classes(names).counts())
    return expecting(learner, checked_class_prior(said, names))


@torch.no_grad()
def _suggested(classifier: FewShotClassifier, read: Material, table: EmbeddingTable) -> tuple[str, ...]:
    """At most ten of the candidates that are most worth labelling, those of the support left out."""
    known = {fingerprint(text) for text in read.task.support.texts}
    new = tuple(text for text in read.candidates or () if fingerprint(text) not in known)
    if not new:
        return ()
    features = table(new)
    logits = classifier.fitted_.predictor.logits(Texts(new, features))
    rows = most_worth_labelling(logits.float().softmax(1).cpu(), features, most=MOST_SUGGESTED)
    return tuple(new[row] for row in rows)
