"""A step's texts through the encoder once, held-out tasks, and the disk that cached states of all texts will take."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from nlpmeta.data import Episode
from nlpmeta.encoder.frozen_layers import StatePrecision, bytes_of
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.encoder.text_encoder import TextEncoder, Tokens
from nlpmeta.encoder.tokenizing import BATCH_TOKENS, length_batches
from nlpmeta.episodes import Sampler, generator
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Embed, Learner
from nlpmeta.metrics.scores import score_episode
from nlpmeta.storage.files import user_cache
from nlpmeta.training.optimise import precision


class TokenCache:
    """The tokens of every requested text, each tokenised once."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._ids: dict[str, torch.Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Token ids of each text."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._ids]
        if missing:
            ids = self._encoder.tokenize(missing)
            self._ids.update(zip(missing, (torch.tensor(row, dtype=torch.int32) for row in ids), strict=True))
        return [self._ids[text].tolist() for text in texts]


@dataclass
class _Chunk:
    """Texts that share a forward pass; ``output`` has a graph where there was room for its activations."""

    rows: Tensor
    tokens: Tokens
    output: Tensor | None
    randomness: Tensor | None


class TextPass:
    """Embeddings of the distinct texts of a step, and the way back from their gradients to the encoder's weights.

    Up to ``keep_tokens`` tokens keep their activations; texts beyond that are embedded without a graph first and, when
    the gradient of the loss in their embeddings is known, once more with one, chunk by chunk, so that memory does not
    grow with the number of texts. The gradients are the same either way.

    Source: GradCache, Gao, Zhang, Han and Callan, RepL4NLP 2021 (arXiv:2101.06983). Where we differ: what fits in
    memory is not computed twice.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        tokens: TokenCache,
        texts: Iterable[str],
        *,
        accelerator: Accelerator,
        keep_tokens: int,
    ) -> None:
        distinct = list(dict.fromkeys(texts))
        self._row = {text: row for row, text in enumerate(distinct)}
        self._encoder, self._accelerator = encoder, accelerator
        ids = tokens(distinct)
        self.n_texts, self.n_tokens = len(ids), sum(map(len, ids))
        budget = min(BATCH_TOKENS, keep_tokens)
        lengths = [len(row) for row in ids]
        groups = length_batches(lengths, batch_tokens=budget, pass_cost=encoder.pass_cost)
        self._chunks: list[_Chunk] = []
        features = torch.empty(len(ids), encoder.dim, device=encoder.device)
        kept = 0
        for group in reversed(groups):  # long texts first: their chunks gain most from being kept
            part = [ids[row] for row in group]
            kept += len(part) * max(map(len, part))
            rows = torch.tensor(group, device=encoder.device)
            chunk = self._first_pass(rows, part, keep=kept <= keep_tokens, features=features)
            self._chunks.append(chunk)
        self.features = features.requires_grad_()

    def of(self, texts: Sequence[str], features: Tensor | None = None) -> Tensor:
        """The embeddings of ``texts``, shape ``(len(texts), dim)``, or their rows in other ``features``."""
        rows = torch.tensor([self._row[text] for text in texts], device=self.features.device, dtype=torch.long)
        return (self.features if features is None else features).index_select(0, rows)

    def backward(self) -> None:
        """Carry the gradients that reached ``features`` on to the encoder's weights, where they are added."""
        gradient = self.features.grad
        if gradient is None:
            return
        for chunk in self._chunks:
            output = chunk.output if chunk.output is not None else self._again(chunk)
            torch.autograd.backward(output, gradient[chunk.rows].to(output.dtype))
            chunk.output = None

    @torch.no_grad()
    def frozen(self) -> Tensor:
        """What the encoder makes of the same texts without its adapters, in the order of ``features``."""
        vectors, encoder = torch.empty_like(self.features), self._encoder.merged(0.0)
        with precision(self._accelerator):
            for chunk in self._chunks:
                vectors[chunk.rows] = encoder.embed_tokens(chunk.tokens, batch_tokens=1 << 30).to(vectors.dtype)
        return vectors

    def _first_pass(self, rows: Tensor, tokens: Tokens, *, keep: bool, features: Tensor) -> _Chunk:
        randomness = None if keep else torch.get_rng_state()
        with torch.set_grad_enabled(keep), precision(self._accelerator):
            output = self._encoder.embed_tokens(tokens, batch_tokens=1 << 30)
        with torch.no_grad():
            features[rows] = output.detach().to(features.dtype)
        return _Chunk(rows, tokens, output if keep else None, randomness)

    def _again(self, chunk: _Chunk) -> Tensor:
        """The second pass, with the same dropout as the first."""
        with torch.random.fork_rng(devices=[]), precision(self._accelerator):
            if chunk.randomness is not None:
                torch.set_rng_state(chunk.randomness)
            return self._encoder.embed_tokens(chunk.tokens, batch_tokens=1 << 30)


class KnownPass:
    """What ``TextPass`` is to an encoder that trains: the embeddings of a step, with nothing to carry back."""

    def __init__(self, known: EmbeddingTable, texts: Iterable[str]) -> None:
        distinct = list(dict.fromkeys(texts))
        before = known.n_tokens
        self.features = known(distinct)
        self.n_texts, self.n_tokens = len(distinct), known.n_tokens - before
        self._row = {text: row for row, text in enumerate(distinct)}

    def of(self, texts: Sequence[str], features: Tensor | None = None) -> Tensor:
        """The embeddings of ``texts``, shape ``(len(texts), dim)``, or their rows in other ``features``."""
        rows = torch.tensor([self._row[text] for text in texts], device=self.features.device, dtype=torch.long)
        return (self.features if features is None else features).index_select(0, rows)

    def backward(self) -> None:
        """Nothing: the encoder does not train."""

    def frozen(self) -> Tensor:
        """The embeddings that an anchor would hold on to are these."""
        return self.features


_CONTROL_FROM = 1 << 40  # episode numbers that training never reaches
_SHUFFLE = 7  # a stream of random numbers of its own


@dataclass(frozen=True)
class Measurement:
    """Accuracy on each held-out set, their mean, and on label-shuffled episodes with the chance level of these."""

    heldout: dict[str, float]
    control: float | None
    chance: float | None

    @property
    def mean(self) -> float | None:
        """The unweighted mean over the held-out sets."""
        return sum(self.heldout.values()) / len(self.heldout) if self.heldout else None


class HeldOut:
    """Fixed episodes that are scored again and again while training goes on."""

    def __init__(
        self,
        evaluate: Mapping[str, Sampler],
        training: Sampler,
        *,
        n_episodes: int,
        n_control: int,
        seed: int,
        tokens: TokenCache,
        known: EmbeddingTable | None = None,
    ) -> None:
        self._sets = {name: [each.episode(i) for i in range(n_episodes)] for name, each in evaluate.items()}
        control = [training.episode(_CONTROL_FROM + i) for i in range(n_control)]
        self._control = [shuffled(episode, seed, i) for i, episode in enumerate(control)]
        self._tokens, self._known = tokens, known

    def texts(self, learner: Learner) -> list[str]:
        """All distinct texts that ``learner`` reads when it is scored."""
        episodes = [e for each in self._sets.values() for e in each] + self._control
        return list(dict.fromkeys(text for e in episodes for text in learner.texts_of(e.support) + e.query.texts))

    def n_tokens(self, learner: Learner) -> int:
        """Tokens that one measurement takes through the encoder, padding aside."""
        if learner.inputs == "embeddings":
            return sum(map(len, self._tokens(self.texts(learner))))
        episodes = [e for each in self._sets.values() for e in each] + self._control
        return sum(len(row) for e in episodes for row in self._tokens(learner.texts_of(e.support) + e.query.texts))

    def measure(self, learner: Learner) -> Measurement:
        """Score ``learner`` as it is on every set."""
        was_training = learner.training
        learner.eval()
        embed = self._table(learner) if learner.inputs == "embeddings" else None
        heldout = {name: _accuracy(learner, episodes, embed) for name, episodes in self._sets.items()}
        control = _accuracy(learner, self._control, embed) if self._control else None
        chance = sum(1 / e.n_way for e in self._control) / len(self._control) if self._control else None
        learner.train(was_training)
        return Measurement(heldout, control, chance)

    @torch.no_grad()
    def _table(self, learner: Learner) -> Embed:
        if self._known is not None:
            return self._known
        texts = self.texts(learner)
        return EmbeddingTable.of(learner.encoder, texts, learner.encoder.embed_tokens(self._tokens(texts)))


def shuffled(episode: Episode, seed: int, index: int) -> Episode:
    """The episode with shuffled support labels: a control from which nothing can be learned.

    Classes are numbered, not named, as a name would still say what its class is.
    """
    order = generator(seed, index, stream=_SHUFFLE).permutation(len(episode.support))
    labels = tuple(episode.support.labels[int(i)] for i in order)
    numbers = tuple(map(str, range(episode.n_way)))
    support = replace(episode.support, labels=labels, label_names=numbers, descriptions=None)
    query = replace(episode.query, label_names=numbers, descriptions=None)
    return replace(episode, support=support, query=query)


def _accuracy(learner: Learner, episodes: list[Episode], embed: Embed | None) -> float:
    scores = [score_episode(learner, episode, embed).accuracy for episode in episodes]
    return sum(scores) / len(scores)


_EPISODES = 2000  # that are drawn in advance; longer runs are estimated from as many, evenly spread
_TEXTS = 2000  # that are tokenised for it


def forecast_states(
    encoder: TextEncoder,
    sampler: Sampler,
    n_episodes: int,
    precision: StatePrecision,
    *,
    also: Iterable[str] = (),
    say: Callable[[str], None] | None = None,
) -> int:
    """Bytes that the states of all texts of a run take at most; says so, and refuses what the disk has no room for.

    Args:
        encoder: whose states.
        sampler: the training tasks.
        n_episodes: how many of them the run takes.
        precision: how states are stored.
        also: texts of held-out tasks.
        say: called with the forecast.

    Raises:
        NLPMetaError: if there is not enough free space.
    """
    drawn = min(n_episodes, _EPISODES)
    indices = {i * n_episodes // drawn for i in range(drawn)}
    training = {text for i in indices for text in sampler.episode(i).texts()}
    others = set(also) - training
    some = sorted(training)[:: max(1, len(training) // _TEXTS)]
    per_text = sum(map(len, encoder.tokenize(some))) / max(1, len(some))
    n_texts = len(training) * n_episodes // drawn + len(others)
    size = bytes_of(int(n_texts * per_text), encoder.dim, precision)
    bound = "" if drawn == n_episodes else "at most "
    folder = user_cache()
    free = free_bytes(folder)
    summary = f"{bound}{n_texts:,} texts of {per_text:.0f} tokens, {size / 1e6:,.0f} MB in {precision}"
    if size > free:
        raise NLPMetaError(
            f"The states of the lower layers would take {summary}, but {free / 1e6:,.0f} MB are free in {folder}. "
            "Free some space, set NLPMETA_CACHE to another disk, or lower_states=off."
        )
    if say is not None:
        say(f"Cache of the lower layers: {summary}; kept in {folder / 'states'}.")
    return size


def free_bytes(folder: Path) -> int:
    """The free space of the disk that ``folder`` is or will be on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
