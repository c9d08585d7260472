"""Meta-train any learner on any sampler, in one or many processes."""

from nlpmeta.training.engine import check_trainable, meta_train
from nlpmeta.training.run import TrainResult
from nlpmeta.training.settings import TrainSettings

__all__ = ["TrainResult", "TrainSettings", "check_trainable", "meta_train"]
