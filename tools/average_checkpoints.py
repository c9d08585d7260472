"""Averages the weights of checkpoints of one learner: the last step in the making of the shipped checkpoint.

    python tools/average_checkpoints.py runs/wide runs/wide-more --earlier runs/multilingual-names --out runs/average

Source: Wortsman et al., Model soups, ICML 2022 (arXiv:2203.05482): weights that were fine-tuned from the same start can
be averaged, and the average is often better than either. All tensors are averaged in float32, the adapters' and the
learner's own. What the new checkpoint says of its training is the union of what they say; a language counts as left out
only if all of them left it out.
"""

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.checkpoint import load_checkpoint, save_checkpoint
from nlpmeta.storage.files import Json
from nlpmeta.storage.manifest import mapping, read_manifest

KEPT = ("recipe_digest", "steps", "heldout_accuracy")


def average(folders: Sequence[Path], out: Path, *, earlier: Sequence[Path] = ()) -> None:
    """Write the average of the checkpoints ``folders`` to ``out``.

    Args:
        folders: at least two checkpoints of the same learner with adapters of the same shape.
        out: the folder of the new checkpoint.
        earlier: the checkpoints that training started from, whose datasets the average has seen too.

    Raises:
        NLPMetaError: if there is nothing to average or the checkpoints do not fit one another.
    """
    if len(folders) < 2:
        raise NLPMetaError(f"An average needs two checkpoints or more; got {len(folders)}.")
    first, *others = (load_checkpoint(folder, device="cpu") for folder in folders)
    weights = dict(first.state_dict())
    for folder, other in zip(folders[1:], others, strict=True):
        theirs = other.state_dict()
        odd = {name for name, value in weights.items() if name not in theirs or theirs[name].shape != value.shape}
        if type(other) is not type(first) or odd or len(theirs) != len(weights):
            raise NLPMetaError(f"{folder} and {folders[0]} have other weights and cannot be averaged.")
    with torch.no_grad():
        for name, value in weights.items():
            if value.is_floating_point():
                value.copy_(torch.stack([value, *(other.state_dict()[name] for other in others)]).mean(0))
    save_checkpoint(first, out, training_facts(folders, earlier), storage="float16")


def training_facts(averaged: Sequence[Path], earlier: Sequence[Path]) -> dict[str, Json]:
    """What the average says of its training: every stage with its recipe's digest, and all datasets."""
    stages = {folder: mapping(read_manifest(folder).get("training", {})) for folder in (*earlier, *averaged)}
    digests = "\n".join(str(stages[folder].get("recipe_digest")) for folder in averaged)
    provenance: dict[str, Json] = {}
    for stage in stages.values():
        provenance |= dict(mapping(stage.get("provenance", {})))
    return {
        "recipe_digest": hashlib.sha256(digests.encode()).hexdigest(),
        "average_of": [_kept(stages[folder]) for folder in averaged],
        "continued_from": [_kept(stages[folder]) for folder in earlier],
        "sets": sorted(set().union(*(_words(stage, "sets") for stage in stages.values()))),
        "leave_out_langs": sorted(set.intersection(*(_words(stage, "leave_out_langs") for stage in stages.values()))),
        "provenance": {name: provenance[name] for name in sorted(provenance)},
        "steps": max(int(str(stages[folder].get("steps", 0))) for folder in averaged),
    }


def _kept(stage: Mapping[str, Json]) -> dict[str, Json]:
    return {key: stage[key] for key in KEPT if key in stage}


def _words(stage: Mapping[str, Json], key: str) -> set[str]:
    found = stage.get(key, [])
    return {str(each) for each in found} if isinstance(found, list) else set()


def main() -> None:
    """Read the arguments and average."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--earlier", nargs="*", type=Path, default=(), help="checkpoints that training started from")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    average(asked.checkpoints, asked.out, earlier=asked.earlier)


if __name__ == "__main__":
    main()
