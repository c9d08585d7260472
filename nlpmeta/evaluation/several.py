"""Adapt and measure where texts have none, one or several labels; the baseline, and saved models on such data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.classifier.several import SeveralExamples, several_learned, thresholds_of
from nlpmeta.data import LabeledTexts
from nlpmeta.data.multilabel import Marks, MultiLabelTexts
from nlpmeta.encoder.compiling import embedding_with
from nlpmeta.encoder.parts import Longer
from nlpmeta.episodes import generator
from nlpmeta.episodes.accounts import check_apart
from nlpmeta.episodes.index import MultiLabelDraw, MultiLabelKShot, MultiLabelTasks, multilabel_folds
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.evaluation.measure import GivesProbabilities
from nlpmeta.evaluation.request import AdaptRequest, Say, source_of
from nlpmeta.evaluation.trial import MOST_FOLDS, Stopwatch, frozen_view, kept_table
from nlpmeta.learners.base import Embed, Learner, Texts
from nlpmeta.learners.logistic import one_vs_rest
from nlpmeta.metrics import SEVERAL_METRICS, several_scores
from nlpmeta.metrics.scores import Interval
from nlpmeta.progress import bars_within
from nlpmeta.sources.loading import Descriptions
from nlpmeta.storage.files import Json

if TYPE_CHECKING:
    from numpy.typing import NDArray

BASELINE = "one-vs-rest logistic regression"


@dataclass(frozen=True, eq=False)
class SeveralReport:
    """A classifier that gives several labels per text, and what was measured while it was made.

    ``scores`` and ``baseline`` hold the figures of ``SEVERAL_METRICS`` of each draw, none if nothing could be scored;
    ``short`` the labels with fewer texts than were requested.
    """

    request: AdaptRequest
    classifier: FewShotClassifier
    scores: tuple[Mapping[str, float], ...]
    baseline: tuple[Mapping[str, float], ...]
    scored_on: str
    n_folds: int | None
    n_texts: int
    short: Mapping[str, int]
    digest: str
    lang: str | None
    watch: Stopwatch
    longer: Longer | None = None
    engine: str = "torch"

    @property
    def scored(self) -> str:
        """What the figures are figures of, in words."""
        runs = f"{self.n_folds} folds" if self.n_folds else "one run" if len(self.scores) == 1 else None
        return f"{runs or f'{len(self.scores)} draws'}, {self.n_texts} texts"

    @property
    def examples(self) -> SeveralExamples:
        """What the saved model learned from."""
        found = self.classifier.fitted_.examples
        assert isinstance(found, SeveralExamples)  # noqa: S101  # it was made of such examples
        return found

    def mean(self, metric: str, *, baseline: bool = False) -> Interval | None:
        """The mean of a figure over the draws, ``None`` without any."""
        found = [score[metric] for score in (self.baseline if baseline else self.scores)]
        return Interval.of(found) if found else None

    def json(self, folder: Path | None = None) -> dict[str, Json]:
        """The object that ``nlpmeta adapt --json`` prints, and ``report.json``; shares are fractions of 1."""
        request, examples = self.request, self.examples
        means = {name: _interval(self.mean(name)) for name in SEVERAL_METRICS}
        theirs = {name: _interval(self.mean(name, baseline=True)) for name in SEVERAL_METRICS}
        exact = f"{self.scored}; accuracy: all labels of a text right"
        return {
            "data": request.data, "lang": self.lang, "method": request.method, "several": True,
            "chosen": ["one-vs-rest"], "n_way": len(examples.classes), "n_shot": request.n_shot,
            "draws": None if self.n_folds else len(self.scores), "folds": self.n_folds,
            "scored": exact if self.scores else None, "n_texts": self.n_texts, **means,
            "accuracy": means["exact_match"],
            "baseline": {"method": BASELINE, **theirs, "accuracy": theirs["exact_match"]},
            "n_support": len(examples.texts), "n_without_label": int((~examples.marks.any(1)).sum()),
            "examples_of": examples.several().counts(), "fewer_than_requested": dict(self.short),
            "scored_on": self.scored_on, "seconds": {name: round(s, 3) for name, s in self.watch.seconds.items()},
            "engine": self.engine, "out": None if folder is None else str(folder), "task": request.facts(self.digest),
            **({} if self.longer is None else {"longer": {**self.longer.json()}}),
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class SeveralData:
    """Texts with several labels: the data, and the test data where there is some. ``digest`` is of the data."""

    pool: MultiLabelTexts
    test: MultiLabelTexts | None
    digest: str

    @classmethod
    def of(cls, pool: LabeledTexts, test: LabeledTexts | None, *, data: str) -> "SeveralData":
        """Label sets as they were read.

        Raises:
            DataError: if there are fewer than two labels, or the test texts have none of them.
        """
        found, other = MultiLabelTexts.of(pool), None if test is None else MultiLabelTexts.of(test)
        there = ", ".join(found.label_names) or "none"
        if len(found.label_names) < 2:
            raise DataError(f"{data}: several labels per text need at least two labels; there are: {there}.")
        if other is not None and not {*found.label_names} & {*other.label_names}:
            has = ", ".join(other.label_names) or "none"
            raise DataError(f"The test data has no label of {data}: it has {has}; {data} has {there}.")
        return cls(found, other, pool.digest())

    def described(self, said: Descriptions | None) -> "SeveralData":
        """With what is said of the labels.

        Raises:
            DataError: if something is said of a label that is not there.
        """
        names = self.pool.label_names
        found = {} if said is None else said.of(np.asarray(names))
        described = tuple(found.get(name, ()) for name in names) if found else None
        return replace(self, pool=replace(self.pool, descriptions=described))

    def texts(self) -> list[str]:
        """All distinct texts."""
        return list(dict.fromkeys([*self.pool.texts, *(self.test.texts if self.test is not None else ())]))


def read_several(request: AdaptRequest) -> SeveralData:
    """Read what ``request`` names; no encoder is loaded.

    Raises:
        NLPMetaError: if it cannot be read, has fewer than two labels, or an option requires one label per text.
    """
    _check(request)
    raw, test = source_of(request, request.data).load(request.lang, several=True), None
    if request.test_data is not None:
        check_apart(request.data, request.test_data)
        test = source_of(request, request.test_data).load(request.lang, several=True)
    data = SeveralData.of(raw, test, data=request.data)
    if request.ways is not None:
        pool = data.pool
        if request.ways > len(pool.label_names):
            raise DataError(f"{request.ways} labels were requested but the data has {', '.join(pool.label_names)}.")
        drawn = generator(request.seed, 0, stream=2).choice(len(pool.label_names), request.ways, replace=False)
        data = replace(data, pool=pool.with_labels([pool.label_names[label] for label in sorted(drawn.tolist())]))
    return data.described(None if request.descriptions is None else Descriptions.of_file(request.descriptions))


def adapt_several(
    request: AdaptRequest, *, data: SeveralData | None = None, show_progress: bool = False, say: Say | None = None
) -> SeveralReport:
    """As ``adapt_and_measure``, for data whose texts have none, one or several labels.

    A support has ``n_shot`` texts of each label, where one text may count for several, and as many without a label.
    The baseline is one-vs-rest logistic regression on the frozen encoder, its thresholds chosen on the same support.

    Args:
        request: what to adapt to and how.
        data: the examples, where ``read_several`` has read them already.
        show_progress: progress bars on standard error.
        say: called with each note, a line at a time.

    Raises:
        NLPMetaError: if the data cannot be used, or an option requires one label per text.
    """
    watch = Stopwatch()
    with watch.stage("data"):
        data = data or read_several(request)
        sampler, draws, folds, where, short = _draws(request, data.pool, data.test)
        if short and say is not None:
            say(f"Note: fewer than {request.n_shot} texts have these labels: {', '.join(short)}; all are used.")
    with watch.stage("import_and_load"):
        learner = request.learner()
    support = sampler if isinstance(sampler, MultiLabelTexts) else sampler.support(0)
    every = [text for draw in draws for part in (draw.support, draw.query) for text in part.texts]
    every = list(dict.fromkeys([*support.texts, *every]))
    learner, longer = request.reading(learner, support.texts, len(every), say=say)
    learner = request.budgeted(learner, [support, *(draw.support for draw in draws)], say=say)
    with embedding_with(request.engine) as used, bars_within(show=show_progress):
        table = kept_table(learner, request.engine, used)
        with watch.stage("encode"):
            table.prime(every, show_progress=show_progress)
        frozen = frozen_view(learner.encoder, table)[1]
        with watch.stage("adapt_and_score"):
            scores = [_scored(head_of(learner, draw.support, table), draw.query) for draw in draws]
        with watch.stage("baseline"):
            plain = [_scored(plain_head(draw.support, frozen), draw.query) for draw in draws if draw.support.texts]
        if folds is not None:
            scores, plain = [_mean(scores)], [_mean(plain)]
        classifier = _classifier(learner, support, table)
    watch.stop()
    texts = {text for draw in draws for text in draw.query.texts}
    langs = {*(data.pool.langs or (request.lang,))}
    lang = langs.pop() if len(langs) == 1 else None
    return SeveralReport(
        request, classifier, tuple(scores), tuple(plain), where, folds, len(texts), short, data.digest, lang, watch,
        longer, ", ".join(sorted(used)) or "torch",
    )  # fmt: skip


def head_of(learner: Learner, support: MultiLabelTexts, embed: Embed) -> GivesProbabilities:
    """What ``learner`` makes of one support."""
    fitted = _classifier(learner, support, embed).fitted_

    def answer(texts: Sequence[str]) -> "tuple[NDArray[np.floating], NDArray[np.floating]]":
        with torch.no_grad():
            odds = fitted.predictor.logits(Texts(tuple(texts), embed(texts)))
        return odds.float().sigmoid().cpu().numpy(), thresholds_of(fitted)

    return answer


@dataclass(frozen=True, eq=False)
class PlainHead:
    """Logistic regression for each label: ``weight`` ``(n_labels, dim)``, ``bias`` and ``least`` ``(n_labels,)``."""

    embed: Embed
    weight: "NDArray[np.float64]"
    bias: "NDArray[np.float64]"
    least: "NDArray[np.float64]"

    def __call__(self, texts: Sequence[str]) -> "tuple[NDArray[np.floating], NDArray[np.floating]]":
        odds = self.embed(texts).cpu().double().numpy() @ self.weight.T + self.bias
        return 1 / (1 + np.exp(-odds)), self.least


def plain_head(support: MultiLabelTexts, embed: Embed, *, held_out: bool = True) -> PlainHead:
    """The baseline: ``logistic.one_vs_rest`` on embeddings; ``held_out`` says on what thresholds are chosen."""
    rows = embed(support.texts).cpu().double().numpy()
    return PlainHead(embed, *one_vs_rest(rows, support.matrix(), held_out=held_out))


def _check(request: AdaptRequest) -> None:
    """Refuse what requires one label per text."""
    asked = {"--suggest": request.suggest, "--inner-steps": request.inner_steps, "--class-prior": request.class_prior}
    wrong = [name for name, value in asked.items() if value is not None]
    if wrong:
        raise NLPMetaError(f"{wrong[0]} requires one label per text; leave it out where texts have several.")
    if request.n_draws < 1:
        raise NLPMetaError(f"At least 1 draw is needed; got {request.n_draws}.")


def _draws(
    request: AdaptRequest, pool: MultiLabelTexts, test: MultiLabelTexts | None
) -> tuple[MultiLabelKShot | MultiLabelTexts, list[MultiLabelDraw], int | None, str, dict[str, int]]:
    """Where the support of the model comes from, what is scored, the number of folds, and what these are in words."""
    where = "the rest of the data" if test is None else "the test file"
    if request.n_shot == 0:
        (named,) = MultiLabelTasks.of(pool, test, n_shot=0, n_draws=1, max_query=None, seed=request.seed).draws
        return named.support, [named], None, "all of the data" if test is None else where, {}
    sampler = MultiLabelKShot(pool, n_shot=request.n_shot, seed=request.seed, test=test)
    if sampler.short and request.rare == "drop":
        kept = [name for name in pool.label_names if name not in sampler.short]
        if len(kept) < 2:
            raise DataError(f"Fewer than two labels have {request.n_shot} texts: {', '.join(kept) or 'none'}.")
        test = None if test is None else test.with_labels(kept)
        sampler = MultiLabelKShot(pool.with_labels(kept), n_shot=request.n_shot, seed=request.seed, test=test)
    if request.n_shot is not None or test is not None:
        n_draws = request.n_draws if request.n_shot is not None else 1
        return sampler, [sampler.draw(index) for index in range(n_draws)], None, where, dict(sampler.short)
    parts = multilabel_folds(len(sampler.pool), MOST_FOLDS, request.seed)
    folds = [MultiLabelDraw(sampler.pool.select(rest), sampler.pool.select(out)) for rest, out in parts]
    said = f"{len(folds)}-fold cross-validation: all examples are in the support" if folds else "nothing"
    return sampler, folds, len(folds) or None, said, {}


def _classifier(learner: Learner, support: MultiLabelTexts, embed: Embed) -> FewShotClassifier:
    classes = np.asarray(support.label_names)
    described = dict(zip(support.label_names, support.descriptions or (), strict=False))
    said: dict[object, tuple[str, ...]] = {name: texts for name, texts in described.items() if texts}
    examples = SeveralExamples.marked(support.texts, Marks(support.matrix(), classes), said)
    fitted = several_learned(learner.eval(), examples, embed, names=embed)
    return FewShotClassifier.from_state(learner, fitted.state, classes, fitted.examples, said, fitted.by_name)


def _scored(answer: GivesProbabilities, query: MultiLabelTexts) -> dict[str, float]:
    found, least = answer(query.texts)
    return several_scores(query.matrix(), found, found >= least)


def _mean(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Over the folds in which a figure is known: average precision is not where no text has a label."""
    known = {name: [each[name] for each in scores if not math.isnan(each[name])] for name in SEVERAL_METRICS}
    return {name: float(np.mean(values)) if values else math.nan for name, values in known.items()}


def _interval(found: Interval | None) -> Json:
    return {"mean": None, "ci95": None} if found is None else found.json()
