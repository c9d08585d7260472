"""Meta-train any learner on any sampler, in one or many processes."""

from nlpmeta.training.engine import TrainResult, check_trainable, meta_train
from nlpmeta.training.settings import TrainSettings

__all__ = ["TrainResult", "TrainSettings", "check_trainable", "meta_train"]
