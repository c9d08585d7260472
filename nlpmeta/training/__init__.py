"""Meta-train any learner on any sampler, in one or many processes."""

from nlpmeta.training.engine import TrainResult, meta_train
from nlpmeta.training.settings import TrainSettings

__all__ = ["TrainResult", "TrainSettings", "meta_train"]
