"""From the names that were typed to learners: methods on one encoder, and checkpoint folders."""

from collections.abc import Sequence
from pathlib import Path

from nlpmeta.checkpoint import read_learner, shared_encoder
from nlpmeta.encoder.weights import DEFAULT_ENCODER
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Learner, learners
from nlpmeta.manifest import read_manifest, whole_folder
from nlpmeta.protocols import Protocol
from nlpmeta.starting import check_meta_trained, find_checkpoint, own_checkpoint, starting_learner


def check_names(names: Sequence[str]) -> None:
    """Make sure that there are names and each is a folder or a method, before anything is loaded.

    Raises:
        NLPMetaError: if there is none.
        UnknownNameError: if one is neither.
    """
    if not names:
        raise NLPMetaError(f"Name a method or a checkpoint folder; methods are: {', '.join(learners)}.")
    for name in names:
        method, _, checkpoint = name.partition("@")
        if checkpoint:
            find_checkpoint(checkpoint, encoder=DEFAULT_ENCODER, method=method)
        if not Path(name).is_dir():
            learners[method]


def is_adapted(name: str) -> bool:
    """Whether ``name`` is the folder of an adapted model, whose task is of no use where tasks are drawn."""
    return Path(name).is_dir() and read_manifest(Path(name)).get("kind") == "adapted"


def learners_of(
    names: Sequence[str],
    protocol: Protocol,
    *,
    encoder: str = DEFAULT_ENCODER,
    prefix: str | None = None,
    max_length: int | None = None,
    device: str = "auto",
) -> dict[str, Learner]:
    """The learners that ``names`` stand for; methods share one encoder, a checkpoint brings its own.

    Args:
        names: names of learners, checkpoint folders, or a method on a checkpoint's encoder: ``auto@default``. A method
            with a checkpoint of its own in the package starts from that.
        protocol: may fix options of a method.
        encoder: a folder or Hub id.
        prefix: what goes before every text; ``None`` for what the encoder was trained with.
        max_length: tokens that are read of a text; ``None`` for what encoder or checkpoint say.
        device: where they run.

    Raises:
        NLPMetaError: if a name is unknown, or an encoder or checkpoint cannot be loaded.
    """
    check_names(names)
    found: dict[str, Learner] = {}
    for name in names:
        method, _, checkpoint = name.partition("@")
        own = own_checkpoint(method) is not None and encoder == DEFAULT_ENCODER and prefix is None
        if checkpoint or (own and not Path(name).is_dir()):
            checkpoint = checkpoint or "default"
            found[name] = starting_learner(method, checkpoint=checkpoint, max_length=max_length, device=device)
            folder = find_checkpoint(checkpoint, encoder=DEFAULT_ENCODER, method=method)
            check_meta_trained(found[name], method, folder)
        elif Path(name).is_dir():
            folder = whole_folder(Path(name))
            learner = read_learner(folder, read_manifest(folder), max_length=max_length, device=device)
            found[name] = learner.requires_grad_(False)
        else:
            options = protocol.options.get(name, {})
            frozen = shared_encoder(encoder, prefix=prefix, max_length=max_length, device=device)
            found[name] = learners[name](frozen, **options)
            check_meta_trained(found[name], name, None)
    return found
