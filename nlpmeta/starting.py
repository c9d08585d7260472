"""What adaptation starts from: the checkpoint that comes with the package, another one, or the frozen encoder."""

from functools import lru_cache
from pathlib import Path

from nlpmeta.checkpoint import load_checkpoint, shared_encoder
from nlpmeta.encoder.weights import DEFAULT_ENCODER
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Learner, learners

SHIPPED = Path(__file__).parent / "checkpoints" / "multilingual"
"""The checkpoint that comes with the package; its card lies beside it."""


def find_checkpoint(asked: str, *, encoder: str) -> Path | None:
    """The folder that ``default``, ``none`` or a folder's name stands for; ``None`` for the frozen encoder.

    ``default`` is the checkpoint of the package with the encoder that it was trained on, and none with another.

    Raises:
        NLPMetaError: if a folder is named that is not there, or a checkpoint together with another encoder.
    """
    if asked == "none" or (asked == "default" and (encoder != DEFAULT_ENCODER or not SHIPPED.is_dir())):
        return None
    if encoder != DEFAULT_ENCODER:
        raise NLPMetaError(f"A checkpoint brings its own encoder; leave out either {asked!r} or {encoder!r}.")
    folder = SHIPPED if asked == "default" else Path(asked)
    if not folder.is_dir():
        raise NLPMetaError(f"There is no checkpoint folder {asked!r}. Give a folder, 'default' or 'none'.")
    return folder


def starting_learner(method: str, *, encoder: str = DEFAULT_ENCODER, checkpoint: str = "default") -> Learner:
    """The learner called ``method`` on the encoder that it starts from, in evaluation mode.

    A checkpoint of that very method is taken with all that it learned; for another method only its encoder is.

    Raises:
        UnknownNameError: if there is no such method.
        NLPMetaError: if encoder or checkpoint cannot be found or do not go together.
    """
    kind = learners[method]
    folder = find_checkpoint(checkpoint, encoder=encoder)
    if folder is None:
        return kind(shared_encoder(encoder)).eval()
    meta_trained = _loaded(folder.resolve())
    return meta_trained if type(meta_trained) is kind else kind.on(meta_trained).eval()


@lru_cache(maxsize=2)
def _loaded(folder: Path) -> Learner:
    return load_checkpoint(folder).requires_grad_(False).eval()
