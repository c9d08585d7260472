"""Requests that wait at the same time share forward passes, by tokens; a huge one takes turns with the small ones."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from nlpmeta.errors import WorkFailedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nlpmeta.auto.answers import LabelSet

WAIT = 0.005
"""Seconds that a pass waits for more requests, if the one before it had several."""
_CROWD, _MOST_GROWTH = 16, 4  # a pass grows with each so many requests that wait, up to so many times its tokens
_BYTES_A_TOKEN = 4  # of UTF-8, about: enough to fill a pass with
LEAST_ROWS = 4096  # embeddings that are kept at least: those of one pass must be


@dataclass(frozen=True, eq=False)
class Read:
    """The answers of a model, as numbers.

    Attributes:
        probabilities: of the classes, ``(n_texts, n_way)``.
        least: where a text may have several labels, the probability from which on each is given, ``(n_way,)``.
        sets: the label set of each text, where that was requested and is known.
    """

    probabilities: "NDArray[np.float32]"
    least: "NDArray[np.float32] | None" = None
    sets: "Sequence[LabelSet] | None" = None


class Embeds(Protocol):
    """What embeds the texts of models, and keeps what it embedded last."""

    pass_tokens: int

    def tokens(self, text: str) -> int:
        """About how many tokens a text has."""

    def embedding(self) -> AbstractContextManager[object]:
        """Within the block models embed from here."""

    def warm(self, texts: Sequence[str]) -> None:
        """Embed texts together whose answers are asked for next."""


class Target(Protocol):
    """What answers texts: a model at one moment, or the users' heads."""

    @property
    def embedder(self) -> Embeds:
        """What embeds its texts."""

    @property
    def shares(self) -> bool:
        """Whether it works on embeddings, which texts of several targets are given together."""

    def answers(self, texts: Sequence[str], owners: Sequence[str]) -> Sequence[object]:
        """An answer for each text; ``owners`` names the user of each, or is empty."""


def about_tokens(text: str, most: int) -> int:
    """About how many tokens a text has of which at most so many are read."""
    return min(most, 3 + len(text) // _BYTES_A_TOKEN * (1 if text.isascii() else 2))


@dataclass(eq=False)
class Job:
    """The texts of one request, of which some are answered already."""

    target: Target
    texts: Sequence[str]
    owner: str
    future: "Future[list[object]]" = field(default_factory=Future)
    answered: list[object] = field(default_factory=list)
    taken: int = 0

    @property
    def waiting(self) -> Sequence[str]:
        """Texts that are in no pass yet."""
        return self.texts[self.taken :]


class QueueFullError(WorkFailedError):
    """More texts are waiting than may; ``seconds`` says when to try again."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        super().__init__(f"Too many texts are waiting for their turn; try again in {seconds} s.")


class Batcher:
    """A thread that embeds and answers what is waiting, pass by pass."""

    def __init__(self, *, most_waiting: int, on_pass: Callable[[int, int, float], object] | None = None) -> None:
        """Start it.

        Args:
            most_waiting: texts that may wait.
            on_pass: called after each pass with its requests, texts and seconds.
        """
        self._most, self._on_pass = most_waiting, on_pass
        self._jobs: deque[Job] = deque()
        self._ready = threading.Condition()
        self._closed, self._shared, self._rate = False, False, 50.0
        self._thread = threading.Thread(target=self._run, name="nlpmeta-batches", daemon=True)
        self._thread.start()

    @property
    def n_waiting(self) -> int:
        """Texts that are in no pass yet."""
        with self._ready:
            return sum(len(job.waiting) for job in self._jobs)

    def submit(self, target: Target, texts: Sequence[str], owner: str = "") -> Job:
        """Put texts into the queue; the answers are the result of the job's future.

        Raises:
            QueueFullError: if there is no room for them.
        """
        job = Job(target, texts, owner)
        with self._ready:
            waiting = sum(len(each.waiting) for each in self._jobs)
            if self._closed or (waiting and waiting + len(texts) > self._most):
                raise QueueFullError(min(60, 1 + int(waiting / self._rate)))
            self._jobs.append(job)
            self._ready.notify()
        return job

    def close(self) -> None:
        """Answer what is waiting, and stop."""
        with self._ready:
            self._closed = True
            self._ready.notify()
        self._thread.join()

    def _run(self) -> None:
        while (taken := self._next()) is not None:
            begun = time.perf_counter()
            by_target: dict[int, list[tuple[Job, Sequence[str]]]] = {}
            for job, texts in taken:
                by_target.setdefault(id(job.target), []).append((job, texts))
            _embed_together(taken)
            for group in by_target.values():
                _answer(group)
            seconds, n_texts = time.perf_counter() - begun, sum(len(texts) for _, texts in taken)
            self._rate += 0.1 * (n_texts / max(seconds, 1e-4) - self._rate)
            if self._on_pass is not None:
                self._on_pass(len(taken), n_texts, seconds)

    def _next(self) -> list[tuple[Job, Sequence[str]]] | None:
        """The texts of the next pass; ``None`` once it is closed and nothing is waiting."""
        with self._ready:
            while True:
                while not self._jobs and not self._closed:
                    self._ready.wait()
                if not self._jobs:
                    return None
                if self._shared and not self._closed:
                    self._gather()
                taken = self._taken()
                self._shared = len(taken) > 1
                if taken:
                    return taken

    def _gather(self) -> None:
        deadline = time.monotonic() + WAIT
        while (left := deadline - time.monotonic()) > 0:
            if sum(job.target.embedder.tokens(text) for job in self._jobs for text in job.waiting[:64]) >= 1024:
                return
            self._ready.wait(left)

    def _taken(self) -> list[tuple[Job, Sequence[str]]]:
        """Texts of all that wait, an equal share each; a job that is not done goes to the end of the queue.

        Where many wait, a pass is larger: texts of like length find each other, and nobody waits for a second pass.
        """
        jobs = [job for job in self._jobs if job.waiting and not job.future.done()]
        self._jobs = deque()
        if not jobs:
            return []
        budget = jobs[0].target.embedder.pass_tokens * min(_MOST_GROWTH, max(1, len(jobs) // _CROWD))
        share, taken = max(1, budget // len(jobs)), list[tuple[Job, Sequence[str]]]()
        unfinished = list[Job]()
        for number, job in enumerate(jobs):
            if budget <= 0:
                self._jobs.extend(jobs[number:])
                break
            n, spent = 0, 0
            while n < len(job.waiting) and (n == 0 or spent < share):
                spent += job.target.embedder.tokens(job.waiting[n])
                n += 1
            taken.append((job, job.waiting[:n]))
            job.taken, budget = job.taken + n, budget - spent
            if job.waiting:
                unfinished.append(job)
        self._jobs.extend(unfinished)
        return taken


def _embed_together(taken: Sequence[tuple[Job, Sequence[str]]]) -> None:
    """Embed the texts of each encoder in one go; who has a text that cannot be embedded is told when it is answered."""
    texts: dict[Embeds, list[str]] = {}
    for job, own in taken:
        if job.target.shares:
            texts.setdefault(job.target.embedder, []).extend(own)
    for embedder, each in texts.items():
        try:
            with embedder.embedding():
                embedder.warm(each)
        except Exception:  # noqa: BLE001, S112  # _answer meets it again and tells those whom it concerns
            continue


def _answer(group: Sequence[tuple[Job, Sequence[str]]]) -> None:
    target = group[0][0].target
    texts = [text for _, own in group for text in own]
    owners = [job.owner for job, own in group for _ in own]
    try:
        with target.embedder.embedding():
            answers = target.answers(texts, owners)
    except Exception as error:  # noqa: BLE001  # it is raised again where the request is answered
        for job, _ in group:
            _finish(job, error)
        return
    place = 0
    for job, own in group:
        job.answered.extend(answers[place : place + len(own)])
        place += len(own)
        if len(job.answered) == len(job.texts):
            _finish(job, None)


def _finish(job: Job, error: Exception | None) -> None:
    if not job.future.set_running_or_notify_cancel():
        return
    if error is not None:
        job.taken = len(job.texts)
        job.future.set_exception(error)
    else:
        job.future.set_result(job.answered)
