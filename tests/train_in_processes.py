"""One process of a small run: python tests/train_in_processes.py OUT; rank and world size from the environment."""

import sys
from pathlib import Path

from meta_task import noisy_learner, samplers

from nlpmeta.training import TrainSettings, meta_train
from nlpmeta.training.engine import make_accelerator

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


def run(out: Path) -> int:
    """Train and return the number of processes."""
    train, heldout = samplers()
    learner, accelerator = noisy_learner(), make_accelerator(SETTINGS, out)
    meta_train(learner, train, settings=SETTINGS, evaluate={"classes": heldout}, out=out, accelerator=accelerator)
    if accelerator.is_main_process:
        (out / "processes").write_text(str(accelerator.num_processes))
    return accelerator.num_processes


if __name__ == "__main__":
    run(Path(sys.argv[1]))
