"""Heads and small adapters of thousands of users on one encoder, in one file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import torch

from nlpmeta.classifier.fitted import Examples
from nlpmeta.classifier.given import at_least_two, checked_pairs
from nlpmeta.data import Label
from nlpmeta.data.inputs import checked_texts
from nlpmeta.encoder.device import Device, check_place
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.errors import DataError, ModelFolderError, UnknownUserError, visible
from nlpmeta.learners.abilities import logits_of_owners
from nlpmeta.learners.base import Learner, TaskState
from nlpmeta.learners.start import starting_learner
from nlpmeta.users.file import UsersFile, checked_user, checked_users, is_user
from nlpmeta.users.heads import HeadPrecision, Packed, SharedHead, check_near, facts_of, pack, unpack

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from nlpmeta.classifier.classifier import FewShotClassifier


@dataclass(frozen=True)
class Stored:
    """What a user takes in the file: bytes (16,384 at most), the precision, and its error (see ``Packed``)."""

    user: str
    bytes: int
    precision: HeadPrecision
    error: float


@dataclass(frozen=True)
class Scored:
    """The probabilities of one text by the head of its user, in the order of ``labels``."""

    user: str
    labels: tuple[Label, ...]
    probabilities: tuple[float, ...]

    @property
    def label(self) -> Label:
        """The most probable label."""
        return self.labels[int(np.argmax(self.probabilities))]

    @property
    def probability(self) -> float:
        """Its probability."""
        return max(self.probabilities)


class AdapterStore:
    """Classifiers of many users that share one encoder: each has classes, a head and, with MAML, adapters of their own.

    A user takes at most 16 KB of one SQLite file; no text is kept. Any number of processes may read and write at the
    same time, and a process may be killed at any moment: a user's row is the last one that was written whole. Texts of
    many users go through the encoder in one pass.
    """

    def __init__(
        self,
        path: Path | str,
        learner: Learner | str = "logistic",
        *,
        checkpoint: str = "default",
        precision: HeadPrecision | None = None,
        device: Device = "auto",
    ) -> None:
        """Open a store, or make one.

        Args:
            path: the file, on a local disk.
            learner: what adapts to a user: a learner, or the name of a method. A file remembers which it was.
            checkpoint: for a name: what it starts from, as in ``FewShotClassifier``.
            precision: how heads are stored; ``None`` takes float16 where it fits, else int8.
            device: where the encoder runs, as in ``FewShotClassifier``; a store made on one device opens on another.

        Raises:
            UnknownNameError: if there is no such method.
            NLPMetaError: if the file was made with another learner or encoder.
            ModelFolderError: if the file is damaged, of a newer format, or no store.
        """
        if isinstance(learner, str):
            chosen = starting_learner(learner, checkpoint=checkpoint, device=device)
        else:
            check_place(learner.encoder, device)
            chosen = learner
        self.learner, self.precision = chosen.eval(), precision
        self._file = UsersFile(Path(path), facts_of(self.learner))

    def adapt(
        self,
        user: str,
        X: "Sequence[str] | ArrayLike",  # noqa: N803
        y: "ArrayLike",
        *,
        near: str | None = None,
    ) -> Stored:
        """Learn a user's classes from texts and a label for each; what was stored for the user is replaced.

        Args:
            user: a name.
            X: texts.
            y: their labels.
            near: a user whose head (method ``logistic``) this one starts from and stays near; it has the same classes.

        Raises:
            DataError: as ``FewShotClassifier.fit``, or if the head to stay near has not a class of these.
            NLPMetaError: if what was learned takes more than 16 KB.
        """
        return self.adapt_many({checked_user(user): (X, y)}, near=near)[0]

    def adapt_many(
        self, examples: "Mapping[str, tuple[Sequence[str] | ArrayLike, ArrayLike]]", *, near: str | None = None
    ) -> list[Stored]:
        """``adapt`` for several users: all texts are embedded together, and all are stored or none.

        Raises:
            DataError: as ``adapt``; nothing is stored then.
        """
        checked = {checked_user(user): Examples.of(*checked_pairs(X, y)) for user, (X, y) in examples.items()}
        shared = None if near is None else self._shared(near, checked)
        for each in checked.values() if shared is None else ():
            at_least_two(each.classes)
        embed = self._embedded(list(checked.values())) if self.learner.inputs == "embeddings" else None
        packed: dict[str, Packed] = {}
        with torch.no_grad():
            for user, each in checked.items():
                if shared is None or embed is None:
                    state, classes = self.learner.adapt(self.learner.support(each.data(), embed)), each.classes
                else:
                    state, classes = shared.moved(embed(each.texts), each.labels), np.asarray(shared.labels)
                packed[user] = pack(user, state, classes, self.precision)
        self._file.write(packed)
        return [_stored(user, each) for user, each in packed.items()]

    def put(self, user: str, classifier: "FewShotClassifier") -> Stored:
        """Store a classifier that was fitted with the same learner, as the head of ``user``.

        Raises:
            DataError: if its learner or encoder is another one.
            NLPMetaError: if it takes more than 16 KB.
        """
        fitted = classifier.fitted_
        if fitted.gives_sets:
            raise DataError("This classifier gives several labels per text, and a store keeps heads that give one.")
        if fitted.learner is not self.learner and facts_of(fitted.learner) != facts_of(self.learner):
            raise DataError("This classifier was fitted with another learner or encoder than the store's.")
        packed = pack(checked_user(user), fitted.state, fitted.classes, self.precision)
        self._file.write({user: packed})
        return _stored(user, packed)

    def predict(self, users: Sequence[str], texts: Sequence[str], *, fallback: str | None = None) -> list[Label]:
        """The most probable label of each text by the head of its user; see ``predict_proba``."""
        return [scored.label for scored in self.predict_proba(users, texts, fallback=fallback)]

    @torch.no_grad()
    def predict_proba(self, users: Sequence[str], texts: Sequence[str], *, fallback: str | None = None) -> list[Scored]:
        """Probabilities for texts of many users, in one pass through the encoder.

        Args:
            users: the user of each text, ``(n,)``.
            texts: the texts, ``(n,)``.
            fallback: the user whose head serves those who have none yet.

        Raises:
            DataError: if there are not as many users as texts.
            UnknownUserError: if a user has no head and there is no fallback.
        """
        checked = checked_texts(texts)
        users = checked_users(users, n_texts=len(checked))
        states, labels = self._states(list(dict.fromkeys(users)), fallback)
        number = {user: i for i, user in enumerate(states)}
        owners = [number.get(user, number.get(fallback or "", 0)) for user in users]
        names = list(states)
        try:
            logits = logits_of_owners(self.learner, list(states.values()), owners, checked)
        except (RuntimeError, LookupError, ValueError, TypeError, AttributeError):
            for user in states:  # one that a stranger wrote, with a checksum that is right
                self._check(user, states[user], labels[user])
            raise
        for owner, scores in zip(owners, logits, strict=True):
            if scores.shape != (len(labels[names[owner]]),) or not bool(scores.isfinite().all()):
                raise self._damaged(names[owner])
        return [
            Scored(user, labels[names[owner]], tuple(scores.float().softmax(0).tolist()))
            for user, owner, scores in zip(users, owners, logits, strict=True)
        ]

    def classifier(self, user: str) -> "FewShotClassifier":
        """A user's classifier by itself, to be saved with ``save_pretrained``.

        Raises:
            UnknownUserError: if there is no such user.
            DataError: if it cannot be a name.
        """
        from nlpmeta.classifier.classifier import FewShotClassifier

        states, labels = self._states([user], None)
        self._check(user, states[user], labels[user])
        return FewShotClassifier.from_state(self.learner, states[user], np.asarray(labels[user]))

    def remove(self, user: str) -> None:
        """Forget a user.

        Raises:
            UnknownUserError: if there is no such user.
            DataError: if it cannot be a name.
        """
        if not self._file.remove(checked_user(user)):
            raise UnknownUserError(user)

    def users(self) -> list[str]:
        """The names of all users, sorted."""
        return self._file.users()

    def close(self) -> None:
        """Close the file; it is opened again when it is next needed."""
        self._file.close()

    def __contains__(self, user: object) -> bool:
        return is_user(user) and bool(self._file.read([user]))

    def __len__(self) -> int:
        return self._file.count()

    def __enter__(self) -> "AdapterStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _shared(self, near: str, examples: Mapping[str, Examples]) -> SharedHead:
        states, labels = self._states([near], None)
        for user, each in examples.items():
            check_near(states[near], user, each.classes.tolist(), labels[near])
        return SharedHead(states[near], labels[near])

    def _states(
        self, users: Sequence[str], fallback: str | None
    ) -> tuple[dict[str, TaskState], dict[str, tuple[Label, ...]]]:
        """State and labels of each user that has a head, and of the fallback where one of them has none."""
        users = [checked_user(user) for user in users]
        fallback = None if fallback is None else checked_user(fallback)
        rows = self._file.read(users)
        missing = [user for user in users if user not in rows]
        if missing and fallback is not None:
            rows |= self._file.read([fallback])
            missing = [] if fallback in rows else [fallback]
        if missing:
            raise UnknownUserError(missing[0])
        unpacked = {user: unpack(row.state, row.labels) for user, row in rows.items()}
        device = self.learner.encoder.device
        states = {user: {k: v.to(device) for k, v in state.items()} for user, (state, _) in unpacked.items()}
        return states, {user: labels for user, (_, labels) in unpacked.items()}

    def _check(self, user: str, state: TaskState, labels: tuple[Label, ...]) -> None:
        from nlpmeta.classifier.streaming import check_state

        try:
            check_state(self.learner, state, len(labels), self._file.path)
        except ModelFolderError as error:
            raise self._damaged(user) from error

    def _damaged(self, user: str) -> ModelFolderError:
        return ModelFolderError(
            f"What {self._file.path} holds of user {visible(repr(user), 60)} does not fit its learner. "
            "Adapt to that user again."
        )

    def _embedded(self, examples: Sequence[Examples]) -> EmbeddingTable:
        texts = [text for each in examples for text in self.learner.texts_of(each.data())]
        distinct = tuple(dict.fromkeys(texts))
        encoder = self.learner.encoder
        return EmbeddingTable.of(encoder, distinct, encoder.encode(distinct))


def _stored(user: str, packed: Packed) -> Stored:
    return Stored(user, packed.size(user), packed.precision, packed.error)
