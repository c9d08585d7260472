"""How good the learner is on tasks it never trains on, and a control that must stay at chance."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from nlpmeta.data import Episode
from nlpmeta.encoder.cache import EmbeddingTable
from nlpmeta.evaluation import score_episode
from nlpmeta.learners.base import Embed, Learner
from nlpmeta.sampling import Sampler, generator
from nlpmeta.training.text_pass import TokenCache

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
    """The episode with the labels of its support dealt out anew: what is learnt from it must be worthless.

    Classes are numbered, not named, as a name would still say what its class is.
    """
    order = generator(seed, index, stream=_SHUFFLE).permutation(len(episode.support))
    labels = tuple(episode.support.labels[int(i)] for i in order)
    numbers = tuple(map(str, range(episode.n_way)))
    support = replace(episode.support, labels=labels, label_names=numbers)
    return replace(episode, support=support, query=replace(episode.query, label_names=numbers))


def _accuracy(learner: Learner, episodes: list[Episode], embed: Embed | None) -> float:
    scores = [score_episode(learner, episode, embed).accuracy for episode in episodes]
    return sum(scores) / len(scores)
