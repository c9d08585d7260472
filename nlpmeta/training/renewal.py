"""Tasks that are clusters of the learner's own embeddings, made anew while it learns."""

from collections.abc import Sequence

import numpy as np
import torch

from nlpmeta.encoder.cache import CHUNK
from nlpmeta.learners.base import Learner
from nlpmeta.progress import track
from nlpmeta.sampling import Sampler
from nlpmeta.sampling.clusters import Vectors, cluster_samplers
from nlpmeta.training.progress import Progress
from nlpmeta.training.text_pass import TokenCache


class Renewal:
    """The cluster samplers of a run, and the embedding of their texts by the encoder as it is."""

    def __init__(self, sampler: Sampler, learner: Learner, tokens: TokenCache, *, show_progress: bool) -> None:
        self._samplers = list(cluster_samplers(sampler))
        self._learner, self._tokens, self._show = learner, tokens, show_progress

    def renew(self, progress: Progress) -> None:
        """Cluster all texts anew, and note the clusters for the next checkpoint."""
        for number, sampler in enumerate(self._samplers):
            progress.partitions[str(number)] = torch.from_numpy(sampler.renew(self._embed))

    def restore(self, progress: Progress) -> None:
        """Use the clusters of a checkpoint."""
        for number, sampler in enumerate(self._samplers):
            if str(number) in progress.partitions:
                sampler.put(progress.partitions[str(number)].numpy())

    @torch.no_grad()
    def _embed(self, texts: Sequence[str]) -> Vectors:
        encoder, was_training = self._learner.encoder.merged(), self._learner.training
        self._learner.eval()
        parts = []
        with track("embedding texts to cluster", len(texts), show=self._show) as advance:
            for start in range(0, len(texts), CHUNK):
                chunk = texts[start : start + CHUNK]
                parts.append(encoder.embed_tokens(self._tokens(chunk)).float().cpu().numpy())
                advance(len(chunk))
        self._learner.train(was_training)
        return np.concatenate(parts)
