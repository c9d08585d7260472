"""Saves that are killed: python tests/save_and_die.py ENCODER WORK KILLS SEED. Prints what each kill left, as JSON.

This process imports everything once and forks a child for each kill, so that fifty kills take seconds.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.encoder.lora import AdapterSettings, adapter_weights, add_adapter
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.learners.checkpoint import load_checkpoint, save_checkpoint
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.storage.manifest import whole_folder

TEXTS, LABELS = ["ball goal", "rice soup", "loan rate"], ["sport", "food", "money"]


def learner(encoder: str, shift: float) -> PrototypicalNetwork:
    loaded = TextEncoder.from_pretrained(encoder, max_length=32)
    add_adapter(loaded, AdapterSettings(rank=4), seed=0)
    for weight in adapter_weights(loaded).values():
        weight.data += shift
    return PrototypicalNetwork(loaded, metric="cosine")


def after_a_kill(
    work: Callable[[], None], random_: random.Random, longest: float, *, watched: Path | None = None
) -> None:
    """Let a child do ``work`` again and again, and kill it at a random moment; after ``watched`` changed, if given."""
    before = _size(watched)
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(told, b"x")
        try:
            while True:
                work()
        finally:
            os._exit(1)  # whatever happened, this is not a second parent
    os.read(ready, 1)
    deadline = time.monotonic() + 60
    while watched is not None and _size(watched) == before and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(random_.uniform(0, longest))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(ready)
    os.close(told)


def _size(path: Path | None) -> int:
    return path.stat().st_size if path is not None and path.exists() else 0


def _seconds(work: Callable[[], None]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def kill_save_pretrained(encoder: str, work: Path, kills: int, random_: random.Random) -> list[str]:
    """Each kill of ``save_pretrained`` over an older model: which of the two is there."""
    models = [FewShotClassifier(learner(encoder, shift)).fit(TEXTS, LABELS) for shift in (0.01, 0.2)]
    scores = [model.predict_proba(TEXTS) for model in models]
    folder, found = work / "model", []
    models[1].save_pretrained(folder)
    longest = 3 * _seconds(lambda: models[0].save_pretrained(folder, overwrite=True))

    def save(first: int) -> None:
        for model in (models[first], models[1 - first]):
            model.save_pretrained(folder, overwrite=True)

    for number in range(kills):
        after_a_kill(partial(save, number % 2), random_, longest)
        loaded = FewShotClassifier.from_pretrained(folder).predict_proba(TEXTS)
        found.append(
            "first" if np.array_equal(loaded, scores[0]) else "second" if np.array_equal(loaded, scores[1]) else "?"
        )
    return found


def kill_checkpoint(encoder: str, work: Path, kills: int, random_: random.Random) -> list[str]:
    """The same for the checkpoint that ``train`` writes among other files."""
    learners = [learner(encoder, shift) for shift in (0.01, 0.2)]
    folder, found = work / "run", []
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("{}\n")
    save_checkpoint(learners[1], folder, {"steps": 1})
    longest = 3 * _seconds(lambda: save_checkpoint(learners[0], folder, {"steps": 0}))

    def save(first: int) -> None:
        for number in (first, 1 - first):
            save_checkpoint(learners[number], folder, {"steps": number})

    for number in range(kills):
        after_a_kill(partial(save, number % 2), random_, longest)
        loaded = adapter_weights(load_checkpoint(folder).encoder)
        same = [all(torch.equal(w, adapter_weights(each.encoder)[n]) for n, w in loaded.items()) for each in learners]
        steps = json.loads((whole_folder(folder) / "nlpmeta.json").read_text())["training"]["steps"]
        found.append(("first", "second")[same.index(True)] if any(same) and same[steps] else "?")
        assert (folder / "metrics.jsonl").read_text() == "{}\n"
    return found


def kill_training(encoder: str, work: Path, kills: int, random_: random.Random) -> list[str]:
    """Runs of a recipe, killed at any time and resumed: what is in the folder after each kill."""
    from nlpmeta.training.engine import run_recipe
    from nlpmeta.training.recipe_files import load_recipe

    recipe = work / "tiny.yaml"
    recipe.write_text(
        f"encoder: {{name: {encoder}, max_length: 32}}\nadapter: {{rank: 2}}\nsteps: 400\neval_every: 2\n"
        "eval_episodes: 1\ncheckpoint_every: 1\nlearning_rate: 0.01\n"
        "data:\n  - {source: starter, langs: [en], n_way: 3, n_shot: 1, n_query: 1}\n"
        "heldout:\n  - {name: swahili, source: starter, langs: [sw], n_way: 3, n_shot: 1, n_query: 2}\n"
    )
    out, found = work / "trained", []
    for _ in range(kills):
        loaded = load_recipe(str(recipe), [f"out={out}"])
        after_a_kill(
            lambda loaded=loaded: run_recipe(loaded, resume=out.exists()) and None,
            random_,
            0.4,
            watched=out / "metrics.jsonl",
        )
        if not (out / "nlpmeta.json").exists() and not (out / ".checkpoint").exists():
            found.append("nothing yet")
            continue
        load_checkpoint(out)
        found.append("checkpoint")
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    encoder, work, kills, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    random_ = random.Random(seed)
    left = {
        "save_pretrained": kill_save_pretrained(encoder, work, kills, random_),
        "checkpoint": kill_checkpoint(encoder, work, kills, random_),
        "training": kill_training(encoder, work, max(kills // 8, 1), random_),
    }
    sys.stdout.write(json.dumps(left))
