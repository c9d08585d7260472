"""One process of a small run: python tests/train_in_processes.py OUT; rank and world size from the environment."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from meta_task import noisy_learner, samplers

from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.training import TrainSettings
from nlpmeta.training.engine import make_accelerator, meta_train
from nlpmeta.training.optimise import DivergedError

SETTINGS = TrainSettings(
    steps=3,
    episodes_per_step=2,
    contrastive_weight=0.5,
    anchor_weight=0.5,
    learning_rate=5e-3,
    warmup=0,
    eval_every=3,
    eval_episodes=2,
)


class Spoiled(PrototypicalNetwork):
    """A learner whose loss is no number in the second process."""

    def batch_loss(self, tasks):
        found = super().batch_loss(tasks)
        return replace(found, loss=found.loss * float("inf")) if os.environ["RANK"] == "1" else found


def run(out: Path, *, spoiled: bool = False) -> int:
    """Train and return the number of processes."""
    train, heldout = samplers()
    learner, accelerator = noisy_learner(), make_accelerator(SETTINGS, out)
    learner.__class__ = Spoiled if spoiled else type(learner)
    meta_train(learner, train, settings=SETTINGS, evaluate={"classes": heldout}, out=out, accelerator=accelerator)
    if accelerator.is_main_process:
        (out / "processes").write_text(str(accelerator.num_processes))
    return accelerator.num_processes


if __name__ == "__main__":
    try:
        run(Path(sys.argv[1]), spoiled="--spoiled" in sys.argv)
    except DivergedError as error:
        Path(sys.argv[1], f"diverged-{os.environ['RANK']}").write_text(str(error))
    finally:  # else its threads may still run when the interpreter is gone, which aborts the process
        torch.distributed.destroy_process_group()
