"""Streams: every text is classified before its label is revealed, and right or wrong is counted by presentation."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.evaluation.measure import Summary, Tables, Tally, one_thread
from nlpmeta.evaluation.protocols import Tasks
from nlpmeta.learners.abilities import ReadsStreams
from nlpmeta.learners.base import Embed, Learner, Support, TaskState, Texts
from nlpmeta.progress import track


@dataclass(frozen=True, eq=False)
class StreamScore:
    """What one learner made of one stream.

    ``presentations`` ``(length,)`` counts from 1: how often the class of each text had come up, that text included.
    ``probabilities`` ``(length, n_way)`` are those before the label is revealed. ``write_seconds`` is a mean.
    """

    labels: Tensor
    presentations: Tensor
    probabilities: Tensor
    write_seconds: float


@torch.no_grad()
def score_stream(learner: Learner, episode: Episode, embed: Embed | None = None) -> StreamScore:
    """Present the support of ``episode`` text by text.

    A learner that reads streams writes each text into its memory; any other one adapts to all texts so far. A class
    that did not come up yet has probability 0; while none did, all have the same.

    Args:
        learner: in evaluation mode.
        episode: its support is the stream; its query is not used.
        embed: where the embeddings come from, for a learner that works on embeddings; its own encoder by default.
    """
    data, known = episode.support, embed if learner.inputs == "embeddings" else None
    features = None if known is None else known(data.texts)
    probabilities = torch.zeros(len(data), data.n_way, device="cpu")
    presentations = torch.zeros(len(data), dtype=torch.long, device="cpu")
    so_far = _Reader(learner, data, features)
    seconds = 0.0
    for row, label in enumerate(data.labels):
        probabilities[row] = so_far.probabilities(row)
        presentations[row] = data.labels[: row + 1].count(label)
        start = time.perf_counter()
        so_far.write(row)
        seconds += time.perf_counter() - start
    return StreamScore(torch.tensor(data.labels, device="cpu"), presentations, probabilities, seconds / len(data))


class _Reader:
    """A learner in the course of a stream; ``classes`` are those that came up, in their order."""

    def __init__(self, learner: Learner, data: LabeledTexts, features: Tensor | None) -> None:
        self._learner, self._data, self._features = learner, data, features
        self._classes: list[int] = []
        self._rows: list[int] = []
        self._state: TaskState | None = learner.empty() if isinstance(learner, ReadsStreams) else None

    def probabilities(self, row: int) -> Tensor:
        """Of each class for the text in ``row``, ``(n_way,)``."""
        n_way = self._data.n_way
        if not self._classes or self._state is None:
            return torch.full((n_way,), 1 / n_way, device="cpu")
        if len(self._classes) == 1:
            found = torch.ones(1, device="cpu")
        else:
            features = None if self._features is None else self._features[row : row + 1]
            logits = self._learner.logits(self._state, Texts((self._data.texts[row],), features))
            found = logits[0].float().softmax(0).cpu()
        return torch.zeros(n_way, device="cpu").index_put((torch.tensor(self._classes, device="cpu"),), found)

    def write(self, row: int) -> None:
        """Tell the label of the text in ``row``."""
        label = self._data.labels[row]
        self._rows.append(row)
        if label not in self._classes:
            self._classes.append(label)
        if isinstance(self._learner, ReadsStreams) and self._state is not None:
            one = Texts(
                self._data.texts[row : row + 1], None if self._features is None else self._features[row : row + 1]
            )
            self._state = self._learner.write(self._state, self._learner.embed(one)[0], self._classes.index(label))
        elif len(self._classes) > 1:
            labels = [self._classes.index(self._data.labels[each]) for each in self._rows]
            texts = tuple(self._data.texts[each] for each in self._rows)
            features = None if self._features is None else self._features[self._rows]
            device = self._learner.encoder.device
            support = Support(texts, features, torch.tensor(labels, device=device), len(self._classes))
            self._state = self._learner.adapt(support)
        else:
            self._state = {}


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
