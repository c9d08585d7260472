"""What adaptation starts from: the checkpoint that comes with the package, another one, or the frozen encoder."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

from nlpmeta.data.inputs import holds_pairs
from nlpmeta.encoder.device import check_place, resolve_device
from nlpmeta.encoder.engines import Engine, takes_compiled
from nlpmeta.encoder.parts import Longer
from nlpmeta.encoder.weights import DEFAULT_ENCODER
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.abilities import takes_pairs
from nlpmeta.learners.base import Learner, Option, learners
from nlpmeta.learners.checkpoint import load_checkpoint, read_learner, shared_encoder
from nlpmeta.storage.manifest import CHECKPOINTS, MANIFEST, SHIPPED, read_manifest, whole_folder

if TYPE_CHECKING:
    from nlpmeta.encoder.device import Device
    from nlpmeta.encoder.text_encoder import TextEncoder


def shipped_checkpoints() -> list[Path]:
    """The folders of the checkpoints that come with the package, by name."""
    return sorted(folder for folder in CHECKPOINTS.iterdir() if folder.is_dir())


def own_checkpoint(method: str) -> Path | None:
    """The checkpoint of the package that is for this method alone, such as ``mann``."""
    folder = CHECKPOINTS / method
    return folder if method.isidentifier() and folder.is_dir() else None


def checkpoint_folder(asked: str) -> Path:
    """A checkpoint by its folder, or by its name where it comes with the package.

    Raises:
        NLPMetaError: if it is neither.
    """
    folders = [Path(asked), CHECKPOINTS / asked] if asked != "default" else [SHIPPED]
    found = next((folder for folder in folders if folder.is_dir()), None)
    if found is None:
        shipped = ", ".join(folder.name for folder in shipped_checkpoints())
        raise NLPMetaError(
            f"There is no checkpoint folder {asked!r}. Give a folder, 'default', 'none', or one that comes with the "
            f"package: {shipped}."
        )
    return found


def find_checkpoint(asked: str, *, encoder: str, method: str | None = None) -> Path | None:
    """The folder that ``default``, ``none`` or a checkpoint's name stands for; ``None`` for the frozen encoder.

    ``default`` is the checkpoint of the package with the encoder that it was trained on, and none with another; for a
    ``method`` that has a checkpoint of its own in the package, that one.

    Raises:
        NLPMetaError: if a checkpoint is named that is not there, or together with another encoder.
    """
    if asked == "none" or (asked == "default" and (encoder != DEFAULT_ENCODER or not SHIPPED.is_dir())):
        return None
    if encoder != DEFAULT_ENCODER:
        raise NLPMetaError(f"A checkpoint brings its own encoder; leave out either {asked!r} or {encoder!r}.")
    own = own_checkpoint(method) if method is not None and asked == "default" else None
    return own or checkpoint_folder(asked)


def check_meta_trained(learner: Learner, method: str, folder: Path | None) -> None:
    """Refuse a method that can do nothing unless the checkpoint is one of its own.

    Raises:
        NLPMetaError: says how to make one.
    """
    if learner.needs_meta_training and (folder is None or _name_in(folder) != method):
        raise NLPMetaError(
            f"{method} needs meta-training, and there is no checkpoint of it here. "
            f"Train one with nlpmeta train {method} and pass it: --checkpoint runs/{method}, or {method}@runs/{method}."
        )


def _name_in(folder: Path) -> object:
    described = read_manifest(whole_folder(folder)).get("learner")
    return described.get("name") if isinstance(described, dict) else None


def starting_learner(
    method: str,
    *,
    encoder: str = DEFAULT_ENCODER,
    checkpoint: str = "default",
    max_length: int | None = None,
    device: "Device" = "auto",
    compiled: bool = False,
) -> Learner:
    """The learner called ``method`` on the encoder that it starts from, in evaluation mode.

    A checkpoint of that very method is taken with all that it learned; for another method only its encoder is.

    Args:
        method: its name.
        encoder: a folder or Hub id.
        checkpoint: as ``find_checkpoint`` takes it.
        max_length: tokens that are read of a text; by default what encoder or checkpoint say.
        device: where it runs, as in ``TextEncoder.from_pretrained``.
        compiled: do without the transformer for as long as a compiled encoder will do, as in ``read_learner``.

    Raises:
        UnknownNameError: if there is no such method.
        NLPMetaError: if encoder or checkpoint cannot be found or do not go together, or ``max_length`` is no integer.
    """
    if max_length is not None and not isinstance(max_length, Integral):
        raise NLPMetaError(f"max_length is how many tokens are read of a text, an integer; got {max_length!r}.")
    folder = find_checkpoint(checkpoint, encoder=encoder, method=method)
    if folder is None:
        return learners[method](shared_encoder(encoder, max_length=max_length, device=device)).eval()
    manifest = folder / MANIFEST
    saved_at = manifest.stat().st_mtime_ns if manifest.is_file() else 0  # what was trained again is read again
    return _started(method, folder.resolve(), saved_at, max_length, str(resolve_device(device)), compiled)


@lru_cache(maxsize=2)
def _started(method: str, folder: Path, saved_at: int, max_length: int | None, device: str, compiled: bool) -> Learner:
    kind, meta_trained = learners[method], _loaded(folder, saved_at, max_length, device, compiled)
    return meta_trained if type(meta_trained) is kind else kind.on(meta_trained).eval()


@lru_cache(maxsize=2)
def _loaded(folder: Path, saved_at: int, max_length: int | None, device: str, compiled: bool) -> Learner:
    found = load_checkpoint(folder, max_length=max_length, device=device, compiled=compiled)
    return found.requires_grad_(False).eval()


def learner_for(
    texts: Sequence[str],
    method: str | Learner,
    encoder: "str | TextEncoder",
    *,
    checkpoint: str,
    max_length: int | None,
    device: "Device",
    engine: Engine = "torch",
) -> Learner:
    """The learner that a classifier starts from, by name or as it was given.

    It reads enough of texts such as ``texts``, unless ``max_length`` or an object says how much is read.

    Raises:
        UnknownNameError: if there is no such method.
        NLPMetaError: as ``starting_learner``, or if an object contradicts ``max_length`` or ``device``.
    """
    if isinstance(method, Learner):
        check_place(method.encoder, device, max_length)
        found, fixed = method.eval(), True
    elif isinstance(encoder, str):
        found, fixed = (
            starting_learner(
                method,
                encoder=encoder,
                checkpoint=checkpoint,
                max_length=max_length,
                device=device,
                compiled=takes_compiled(device, engine),
            ),
            max_length is not None,
        )
    else:
        check_place(encoder, device, max_length)
        found, fixed = learners[method](encoder).eval(), True
    found = of_pairs(found) if holds_pairs(texts) else found
    return found if fixed else reading(found, texts)[0]


def reading(learner: Learner, texts: Sequence[str]) -> tuple[Learner, Longer | None]:
    """The learner with an encoder that reads as much of a text as texts such as ``texts`` need, and what that is.

    The weights are shared. A learner that embeds for itself, as MAML does, reads what it read: reading more would make
    its every step dearer.
    """
    longer = Longer.of(learner.encoder, texts) if learner.inputs == "embeddings" else None
    if longer is None:
        return learner, None
    return rebuilt(learner, learner.encoder.reading(longer.max_length, longer.window)), longer


def of_pairs(learner: Learner) -> Learner:
    """The learner for pairs of texts.

    Raises:
        NLPMetaError: if it takes none.
    """
    if learner.encoder.pairs:
        return learner
    if not takes_pairs(type(learner)):
        able = ", ".join(name for name in learners if takes_pairs(learners[name]))
        raise NLPMetaError(f"{learners.name_of(type(learner))} takes no pairs of texts; these methods do: {able}.")
    try:
        return rebuilt(learner, learner.encoder.of_pairs())
    except RuntimeError as error:
        raise NLPMetaError(f"What {learners.name_of(type(learner))} learned of texts does not fit pairs.") from error


def rebuilt(learner: Learner, encoder: "TextEncoder") -> Learner:
    """The same learner, with all that it learned, on another form of its encoder."""
    twin = type(learner)(encoder, **learner.config())
    own = {name: value for name, value in learner.state_dict().items() if not name.startswith("encoder.")}
    twin.load_state_dict(own, strict=False)
    for weight, before in zip(twin.parameters(), learner.parameters(), strict=True):
        weight.requires_grad_(before.requires_grad)
    return twin.train(learner.training)


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


def kinds_of(names: Sequence[str]) -> dict[str, type[Learner]]:
    """The classes of the learners that ``names``, as ``learners_of`` takes them, stand for; no encoder is loaded."""
    folders = {name: str(_name_in(Path(name))) for name in names if Path(name).is_dir()}
    return {name: learners[folders.get(name, name.partition("@")[0])] for name in names}


def is_adapted(name: str) -> bool:
    """Whether ``name`` is the folder of an adapted model, whose task is of no use where tasks are drawn."""
    return Path(name).is_dir() and read_manifest(Path(name)).get("kind") == "adapted"


def learners_of(
    names: Sequence[str],
    options: Mapping[str, Mapping[str, Option]],
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
        options: what a protocol fixes of some methods, by their names.
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
            frozen = shared_encoder(encoder, prefix=prefix, max_length=max_length, device=device)
            found[name] = learners[name](frozen, **options.get(name, {}))
            check_meta_trained(found[name], name, None)
    return found
