"""Requests that wait at the same time share forward passes, by tokens; a huge one takes turns with the small ones."""

import threading
import time
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from nlpmeta.encoder.compiling import embedded_by
from nlpmeta.encoder.device import tokens_at_once
from nlpmeta.encoder.engines import Engine, embed_by
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import WorkFailedError
from nlpmeta.progress import Advance

WAIT = 0.005
"""Seconds that a pass waits for more requests, if the one before it had several."""
_BYTES_A_TOKEN = 4  # of UTF-8, about: enough to fill a pass with
_LEAST_ROWS = 4096  # embeddings that are kept at least: those of one pass must be


class Embedder:
    """An encoder with the embeddings that it made last, by tokens: what was embedded once costs no pass again."""

    def __init__(self, encoder: TextEncoder, engine: Engine, *, most_bytes: int) -> None:
        self.encoder, self._engine = encoder, engine
        self.pass_tokens = tokens_at_once(encoder)
        self._most = max(_LEAST_ROWS, most_bytes // (4 * encoder.dim))
        self._rows: OrderedDict[bytes, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def tokens(self, text: str) -> int:
        """About how many tokens a text has."""
        return min(self.encoder.max_length, 3 + len(text) // _BYTES_A_TOKEN * (1 if text.isascii() else 2))

    @contextmanager
    def embedding(self) -> Iterator[None]:
        """Within the block this thread's encoders embed from here."""
        before = embed_by.set(self._embed)
        try:
            yield
        finally:
            embed_by.reset(before)

    def knows(self, texts: Sequence[str]) -> list[bool]:
        """Whether the embedding of each text is at hand."""
        keys = [_key(ids) for ids in self.encoder.tokenize(texts)]
        with self._lock:
            return [key in self._rows for key in keys]

    def _embed(self, encoder: TextEncoder, tokens: Sequence[list[int]], advance: Advance | None) -> Tensor | None:
        scales, own = (getattr(each, "scales", None) for each in (encoder, self.encoder))
        if encoder.backbone is not self.encoder.backbone or (scales is None) != (own is None):
            return embedded_by(self._engine, encoder, tokens, advance)
        keys = [_key(ids) for ids in tokens]
        found: dict[bytes, Tensor] = {}
        with self._lock:
            for key in keys:
                if key in self._rows:
                    self._rows.move_to_end(key)
                    found[key] = self._rows[key]
        new = {key: ids for key, ids in zip(keys, tokens, strict=True) if key not in found}
        if new:
            made = self._computed(list(new.values()))
            found |= dict(zip(new, made, strict=True))
            self._keep(dict(zip(new, made.cpu(), strict=True)))
        rows = torch.stack([found[key] for key in keys]).to(self.encoder.device)
        if scales is None or rows.size(1) == encoder.dim:
            return rows
        columns: Callable[[float], slice] = self.encoder.columns  # type: ignore[assignment]
        return torch.cat([rows[:, columns(scale)] for scale in scales], dim=1)

    def _computed(self, tokens: list[list[int]]) -> Tensor:
        made = embedded_by(self._engine, self.encoder, tokens, None) if self._engine != "torch" else None
        return self.encoder.merged().embed_tokens(tokens) if made is None else made

    def _keep(self, rows: dict[bytes, Tensor]) -> None:
        with self._lock:
            self._rows.update({key: row.clone() for key, row in rows.items()})
            while len(self._rows) > self._most:
                self._rows.popitem(last=False)


def _key(ids: Sequence[int]) -> bytes:
    return array("I", ids).tobytes()


class Target(Protocol):
    """What answers texts: a model at one moment, or the users' heads."""

    @property
    def embedder(self) -> Embedder:
        """What embeds its texts."""

    @property
    def shares(self) -> bool:
        """Whether it works on embeddings, which texts of several targets are given together."""

    def answers(self, texts: Sequence[str], owners: Sequence[str]) -> Sequence[object]:
        """An answer for each text; ``owners`` names the user of each, or is empty."""


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
        """Texts of all that wait, an equal share each; a job that is not done goes to the end of the queue."""
        jobs = [job for job in self._jobs if job.waiting and not job.future.done()]
        self._jobs = deque()
        if not jobs:
            return []
        budget = jobs[0].target.embedder.pass_tokens
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
    texts: dict[Embedder, list[str]] = {}
    for job, own in taken:
        if job.target.shares:
            texts.setdefault(job.target.embedder, []).extend(own)
    for embedder, each in texts.items():
        try:
            with embedder.embedding():
                embedder.encoder.encode(each)
        except Exception:  # noqa: BLE001, S112  # _answer meets it again and tells those whom it concerns
            continue


def _answer(group: Sequence[tuple[Job, Sequence[str]]]) -> None:
    target = group[0][0].target
    texts = [text for _, own in group for text in own]
    owners = [job.owner for job, own in group for _ in own]
    try:
        with torch.no_grad(), target.embedder.embedding():
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
