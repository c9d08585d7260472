"""A run that can be killed: python tests/train_slowly.py OUT. The parent process does the killing."""

import sys
import time
from pathlib import Path

from meta_task import KEYS, noisy_learner, noisy_pool, samplers

from nlpmeta.episodes.clusters import ClusterSampler
from nlpmeta.episodes.wrappers import MixtureSampler
from nlpmeta.training import TrainSettings
from nlpmeta.training.engine import meta_train
from nlpmeta.training.run import TrainResult

SETTINGS = TrainSettings(
    steps=12,
    eval_every=4,
    eval_episodes=4,
    checkpoint_every=3,
    renew_every=5,  # between two checkpoints: the clusters of the killed run are not those of its weights
    keep_checkpoints=2,
    learning_rate=5e-3,
    contrastive_weight=0.3,
    warmup=2,
)


class Slow:
    """Episodes that take their time, so that there is time to kill the process."""

    def __init__(self, sampler: object, seconds: float) -> None:
        self.sampler, self._seconds = sampler, seconds

    def episode(self, index: int) -> object:
        time.sleep(self._seconds)
        return self.sampler.episode(index)


def run(out: Path, *, resume: bool, seconds: float = 0.0, **changes: object) -> tuple[object, TrainResult]:
    labelled, heldout = samplers()
    clusters = ClusterSampler(noisy_pool(KEYS[:16]).texts, n_way=5, n_shot=1, n_query=3, seed=0, n_clusters=12)
    train = MixtureSampler([labelled, clusters], weights=[2, 1], seed=0)
    learner = noisy_learner(dropout=0.2)  # dropout draws from torch's random numbers, which must be restored
    result = meta_train(
        learner,
        Slow(train, seconds),
        settings=SETTINGS.model_copy(update=changes),
        evaluate={"classes": heldout},
        out=out,
        resume=resume,
    )
    return learner, result


if __name__ == "__main__":
    import torch

    torch.manual_seed(3)
    run(Path(sys.argv[1]), resume=False, seconds=0.15)
