"""A classifier that goes on learning from a stream whose labels come late, and says when the stream has changed."""

import copy
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, fields
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.data import Label
from nlpmeta.data.inputs import checked_texts, values_of
from nlpmeta.data.labels import kind_of
from nlpmeta.encoder.device import Device
from nlpmeta.encoder.tokenizing import Guard
from nlpmeta.errors import DataError, NLPMetaError, UnknownNameError, visible
from nlpmeta.online.alarms import Alarm, Record, SeenBy
from nlpmeta.online.files import Followed, Moment, Waiting, read_online, write_online
from nlpmeta.online.stream import OnlineSettings, Stream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def checked_answers(
    tickets: object, labels: object, *, awaited: Container[int], known: Sequence[object]
) -> list[tuple[int, int]]:
    """Each ticket with the number of its class, in their order; takes time in proportion to the tickets.

    Args:
        tickets: whole numbers, in a list, array, series or iterator.
        labels: as many, of the kind of ``known``.
        awaited: the tickets whose labels are awaited.
        known: the classes.

    Raises:
        DataError: if there are not as many labels as tickets, or a ticket is no number, unknown, or answered already.
        UnknownNameError: if a label is none of the classes.
    """
    asked = values_of(tickets, name="tickets", what="tickets")
    given = values_of(labels, name="labels", what="labels")
    if len(asked) != len(given):
        raise DataError(f"{len(asked)} tickets came with {len(given)} labels.")
    number = {label: i for i, label in enumerate(known)}
    answers: dict[int, int] = {}
    for ticket, label in zip(asked, given, strict=True):
        if kind_of(ticket) is not int:
            shown = f"{visible(repr(ticket), 60)} ({type(ticket).__name__})"
            raise DataError(f"A ticket is the whole number returned by receive; got {shown}.")
        key = int(ticket)  # type: ignore[call-overload]  # numpy's whole numbers too
        if key not in awaited or key in answers:
            raise DataError(
                f"Ticket {visible(repr(ticket), 60)} is unknown: it was never issued, or already has its label."
            )
        answers[key] = _number_of(label, number, known)
    return list(answers.items())


def _number_of(label: object, number: dict[object, int], known: Sequence[object]) -> int:
    try:
        found = number.get(label)
    except TypeError:  # a list or another thing that no class can be
        found = None
    if found is None or (kind_of(label) is bool) != (kind_of(known[0]) is bool):  # True is equal to 1
        raise UnknownNameError("class", str(label), [str(each) for each in known])
    return found


MOST_WAITING = 100_000
"""Texts that are remembered while their labels are awaited; the oldest are forgotten first."""


@dataclass(frozen=True)
class Answer:
    """The prediction for one text of the stream; its label is handed in under ``ticket``."""

    ticket: int
    label: Label
    probability: float


P = ParamSpec("P")
R = TypeVar("R")


def _as_one(change: "Callable[Concatenate[OnlineClassifier, P], R]") -> "Callable[Concatenate[OnlineClassifier, P], R]":
    """Let a method change a draft, which then takes the place of what was: all of the change is seen, or none of it."""

    def changed(self: "OnlineClassifier", /, *args: P.args, **options: P.kwargs) -> R:
        with self._guard:
            draft = copy.copy(self)
            draft.alarms, draft.waiting, draft.moments = [*self.alarms], {**self.waiting}, [*self.moments]
            found = change(draft, *args, **options)
            self.__dict__.update(draft.__dict__)
        return found

    return update_wrapper(changed, change)


class OnlineClassifier:
    """Follows a stream from a fitted classifier on: predicts, learns every label that comes, warns of drift.

    What is updated, each label in a few milliseconds: a linear head on the embeddings that is added to the scores of
    the classifier (adapted to the newest labels and replayed ones), running prototypes that forget, and the leader that
    the head starts from with its step size and the pull of the prototypes (``stream.followed``). The encoder and the
    classifier itself stay as they are, and at the start the scores are exactly the classifier's.

    The alarm (``alarms.DriftAlarm``) watches the losses of a head that does not learn, how far texts lie from the known
    ones, and how like one another the newest are (``alarms.Burst``); false alarms come at most once in
    ``settings.one_in`` texts on average.

    Any number of threads may use it: changes come one after another, and a prediction sees the stream before or after
    one.
    """

    def __init__(self, classifier: FewShotClassifier, settings: OnlineSettings | None = None) -> None:
        """Begin a stream.

        Args:
            classifier: fitted, with its examples; it is not changed.
            settings: how the stream is followed.

        Raises:
            NLPMetaError: if the classifier was loaded from a folder that does not hold its examples.
        """
        check_is_fitted(classifier)
        if classifier.fitted_.gives_sets:
            raise NLPMetaError("This classifier gives several labels a text, and a stream is followed with one a text.")
        if classifier.examples_ is None:
            raise NLPMetaError(
                "This model was saved without its examples, from which a stream begins. Fit it again, or save it with "
                "include_support=True."
            )
        self._guard = Guard()
        self.classifier, self.settings = (
            copy.copy(classifier),
            settings or OnlineSettings(),
        )  # it may learn on by itself
        data = classifier.examples_.data()
        features, base = self._seen(data.texts)
        self.centre = features.mean(0)
        self.scale = (features - self.centre).norm(dim=1).mean().clamp(min=1e-6)
        rows = (features - self.centre) / self.scale
        self.stream = Stream.begin(rows, base, torch.tensor(data.labels, device=rows.device), self.settings)
        self.record, self.alarms = Record(self.settings.fading), list[Alarm]()
        self.waiting: dict[int, Waiting] = {}
        self.moments: list[Moment] = [Moment(0, None, self.stream)]

    @property
    def classes_(self) -> "NDArray[np.generic]":
        """The labels, ``(n_way,)``."""
        return self.classifier.classes_

    def predict_proba(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """Class probabilities as of now, ``(n_texts, n_way)``; the texts do not become part of the stream."""
        rows, base = self._rows(checked_texts(texts))
        found: NDArray[np.float32] = self.stream.scores(rows, base).softmax(1).numpy()
        return found

    def predict(self, texts: Sequence[str]) -> "NDArray[np.generic]":
        """The most probable label of each text as of now."""
        found: NDArray[np.generic] = self.classes_[self.predict_proba(texts).argmax(1)]
        return found

    @_as_one
    def receive(self, texts: Sequence[str]) -> list[Answer]:
        """Take the next texts of the stream and predict their labels, which may come later, or never."""
        rows, base = self._rows(checked_texts(texts))
        probabilities = self.stream.scores(rows, base).softmax(1)
        answers = []
        for row, scores, each in zip(rows, base, probabilities, strict=True):
            ticket, best = self.record.n_texts, int(each.argmax())
            self.record = self.record.after_text()
            self.waiting[ticket] = Waiting(row, scores, best)
            answers.append(Answer(ticket, self.classes_[best].item(), float(each[best])))
            self.stream = self.stream.watched(row)
            self._ring("texts", self.stream.text_alarm.sounds)
            self._ring("burst", self.stream.burst.alarm.sounds)
        while len(self.waiting) > MOST_WAITING:
            del self.waiting[next(iter(self.waiting))]
        return answers

    @_as_one
    def learn(self, tickets: Sequence[int], labels: Sequence[Label]) -> list[Alarm]:
        """Learn labels of texts that were received before, in the order in which they come.

        Returns:
            The alarms that these labels raised.

        Raises:
            DataError: if there are not as many labels as tickets, or a ticket is unknown or has its label already.
            UnknownNameError: if a label is none of the classes. Nothing is learned then.
        """
        answers = checked_answers(tickets, labels, awaited=self.waiting, known=self.classes_.tolist())
        before = len(self.alarms)
        for ticket, number in answers:
            self._learn(self.waiting.pop(ticket), number)
        return self.alarms[before:]

    @property
    def accuracy(self) -> float | None:
        """Prequential accuracy: the share of predictions, each made before its label came, that were right.

        Source: Dawid, 1984; with fading, Gama, Sebastiao and Rodrigues, Machine Learning 90, 2013, section 3.
        """
        return self.record.accuracy

    @property
    def recent_accuracy(self) -> float | None:
        """The same with fading: a prediction counts less with every later label."""
        return self.record.recent_accuracy

    @_as_one
    def rollback(self, n_labels: int) -> Moment:
        """Return to the newest kept state that had learned ``n_labels`` labels or fewer; what came later is unlearned.

        The record of predictions and alarms stays: it says what happened.

        Raises:
            NLPMetaError: if no such state is kept.
            DataError: if ``n_labels`` is no whole number.
        """
        if kind_of(n_labels) is not int:
            raise DataError(f"n_labels is a number of labels; got {visible(repr(n_labels), 60)}.")
        fitting = [moment for moment in self.moments if moment.n_labels <= n_labels]
        if not fitting:
            kept = ", ".join(str(moment.n_labels) for moment in self.moments)
            raise NLPMetaError(f"No state with {n_labels} labels or fewer is kept; there are states with {kept}.")
        self.moments = fitting
        self.stream = fitting[-1].stream
        return fitting[-1]

    def save(self, folder: Path | str, *, overwrite: bool = False) -> None:
        """Write everything, what is awaited and the kept states too; ``load`` then continues identically.

        Raises:
            NLPMetaError: if the folder exists and ``overwrite`` is off.
        """
        now = copy.copy(self)  # whatever other threads teach it meanwhile
        parts = Followed(**{part.name: getattr(now, part.name) for part in fields(Followed)})
        write_online(parts, Path(folder), overwrite=overwrite)

    @classmethod
    def load(cls, folder: Path | str, *, device: Device = "auto") -> "OnlineClassifier":
        """What ``save`` wrote; ``device`` says where its encoder runs, as in ``FewShotClassifier``.

        Raises:
            NLPMetaError: if there is no such folder.
            ModelFolderError: if it is damaged, incomplete or of a newer format.
        """
        self = cls.__new__(cls)
        self._guard = Guard()
        self.__dict__.update(vars(read_online(Path(folder), device=device)))
        return self

    def _learn(self, text: Waiting, label: int) -> None:
        self.record = self.record.after_label(text.predicted == label)
        self.stream = self.stream.learned(text.row, text.base, label, self.settings)
        self._ring("labels", self.stream.loss_alarm.sounds)
        if self.stream.n_labels % self.settings.keep_every == 0:
            self.moments.append(Moment(self.stream.n_labels, self.recent_accuracy, self.stream))
            self.moments = self.moments[-self.settings.keep :]

    def _ring(self, seen_by: SeenBy, sounds: bool) -> None:
        if sounds:
            self.alarms.append(Alarm(self.record.n_texts, self.record.n_labels, seen_by))
            self.stream = self.stream.referenced()

    @torch.no_grad()
    def _seen(self, texts: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Embeddings ``(n, dim)`` and the classifier's scores ``(n, n_way)``."""
        fitted = self.classifier.fitted_
        queries = fitted.predictor.queries(texts)
        features = fitted.learner.encoder.encode(texts) if queries.features is None else queries.features
        return features.float().cpu(), fitted.predictor.logits(queries).float().cpu()

    def _rows(self, texts: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        features, base = self._seen(texts)
        return (features - self.centre) / self.scale, base
