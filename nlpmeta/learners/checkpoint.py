"""Reads and writes the learner part of a model folder: safetensors and JSON, each file with its checksum."""

import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast, get_args

from nlpmeta.encoder.device import Device, resolve_device
from nlpmeta.encoder.files import CONFIG_FILE, WEIGHTS_FILE, Pooling
from nlpmeta.encoder.lora import Storage, has_adapter, load_adapter, save_adapter
from nlpmeta.encoder.parts import PAIR_FORM
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.encoder.views import Deferred, note_views
from nlpmeta.encoder.weights import resolve
from nlpmeta.errors import DataWarning, ModelFolderError, NLPMetaError
from nlpmeta.learners.base import Learner, learners
from nlpmeta.storage.files import Json, read_bytes, write_bytes
from nlpmeta.storage.folders import listed_files, new_folder
from nlpmeta.storage.manifest import MANIFEST, PARTS, finish_save, mapping, read_manifest, whole_folder, write_manifest
from nlpmeta.storage.tensors import LARGEST_FILE, read_tensors

LEARNER_FILE = "learner.safetensors"
_LARGEST_LOGARITHM = 40.0
_NAMED = 4  # tensors that a message names
CHECKPOINT_FILES = (LEARNER_FILE, CONFIG_FILE, WEIGHTS_FILE, MANIFEST)
"""What ``save_checkpoint`` writes."""
_LARGEST_NUMBER, _LONGEST_WORD = 10**6, 1000  # of options: what is beyond is no option of ours


def write_learner(folder: Path, learner: Learner, *, storage: Storage = "exact") -> dict[str, Json]:
    """Write the weights of learner and adapter into ``folder``; return what the manifest says of them."""
    from safetensors.torch import save

    own = {name: tensor for name, tensor in learner.state_dict().items() if not name.startswith("encoder.")}
    write_bytes(folder / LEARNER_FILE, save({name: tensor.cpu().contiguous() for name, tensor in own.items()}))
    if (later := learner.encoder.pending) is not None and storage == "exact":
        adapter = later.check()
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            write_bytes(folder / name, read_bytes(adapter / name, most=LARGEST_FILE))
    elif has_adapter(learner.encoder):
        save_adapter(learner.encoder, folder, storage=storage)
    facts: dict[str, Json] = {
        "learner": {"name": learners.name_of(type(learner)), "options": dict(learner.config())},
        "encoder": _encoder_facts(learner.encoder),
    }
    return facts if learner.encoder.trained is None else {**facts, "training": learner.encoder.trained}


def read_learner(
    folder: Path,
    manifest: Mapping[str, Json],
    *,
    max_length: int | None = None,
    device: Device = "auto",
    compiled: bool = False,
) -> Learner:
    """The learner that a manifest describes, with its encoder, in evaluation mode.

    Args:
        folder: the model's.
        manifest: what it says of itself.
        max_length: tokens that are read of a text, in place of those that it was made with.
        device: where it runs, as in ``TextEncoder.from_pretrained``.
        compiled: embed by the compiled encoder, if there is one: the transformer itself is then loaded when something
            needs its weights, which may be never.

    Raises:
        ModelFolderError: if the description or the weights do not fit this release.
        NetworkError: if the encoder is not on disk and cannot be fetched.
    """
    try:
        facts, options = mapping(manifest["encoder"]), _options(mapping(manifest["learner"])["options"])
        kind = learners[str(mapping(manifest["learner"])["name"])]
        reads = _reading(facts, max_length)
        if not (folder / CONFIG_FILE).is_file():
            encoder = shared_encoder(**reads, device=device)
        else:
            encoder = (_deferred(folder, reads) if compiled else None) or _adapted(folder, reads, device)
            encoder.trained = _training_facts(manifest)
        learner = kind(encoder.of_pairs() if _of_pairs(facts, folder) else encoder, **options)
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError, AttributeError) as error:
        if isinstance(error, NLPMetaError):
            raise
        raise ModelFolderError(f"{folder / MANIFEST} does not describe a learner of this release ({error}).") from error
    _warn_of_other_weights(encoder, str(facts.get("digest")))
    own = read_tensors(folder / LEARNER_FILE)
    missing = {name for name in learner.state_dict() if not name.startswith("encoder.")} ^ set(own)
    if missing:
        raise ModelFolderError(
            f"{folder / LEARNER_FILE} does not fit the learner: {', '.join(sorted(missing)[:_NAMED])} are not in both. "
            "If an earlier release wrote it, train the learner again."
        )
    try:
        learner.load_state_dict(own, strict=False)
    except RuntimeError as error:
        raise ModelFolderError(f"{folder / LEARNER_FILE} does not fit the learner: {error}") from error
    for name, value in own.items():
        if value.is_floating_point() != learner.state_dict()[name].is_floating_point():
            raise ModelFolderError(f"{folder / LEARNER_FILE} is damaged: {name[:60]!r} holds numbers of another kind.")
        # Temperatures, scales, rates: exponents neither of zero nor of infinity.
        if name.rpartition(".")[2].startswith("log_") and float(value.abs().max()) > _LARGEST_LOGARITHM:
            raise ModelFolderError(
                f"{folder / LEARNER_FILE} is damaged: {name[:60]!r} is out of range, beyond {_LARGEST_LOGARITHM:g}."
            )
    return learner.eval()


def _reading(facts: Mapping[str, Json], max_length: int | None) -> dict[str, Any]:
    """Which encoder, and how it reads, as ``TextEncoder.from_pretrained`` takes it."""
    return {
        "name": str(facts["id"]),
        "revision": None if facts["revision"] is None else str(facts["revision"]),
        "prefix": _word(facts["prefix"]),
        "max_length": _number(facts["max_length"]) if max_length is None else max_length,
        "window": _number(facts["window"]) if max_length is None and "window" in facts else None,
        "normalise": bool(facts["normalise"]),
        "pooling": _pooling(facts.get("pooling", "mean")),
    }


def _adapted(folder: Path, reads: Mapping[str, Any], device: Device) -> TextEncoder:
    """An encoder of its own with the adapters in a folder."""
    encoder = own_encoder(**reads, device=device)
    load_adapter(encoder, folder)
    note_views(encoder, folder)
    return encoder


def _deferred(folder: Path, reads: Mapping[str, Any]) -> TextEncoder | None:
    """The same, whose weights are loaded when they are needed; ``None`` if no compiled form of it is known."""
    files = resolve(reads["name"], revision=reads["revision"])
    how = {**reads, "files": files}
    del how["name"], how["revision"]
    later = Deferred.of(files, folder, lambda: _adapted(folder, reads, "cpu").requires_grad_(False))
    return None if later is None else TextEncoder(later, None, **how)


def save_checkpoint(learner: Learner, folder: Path, facts: Mapping[str, Json], *, storage: Storage = "exact") -> None:
    """Write a meta-trained learner into ``folder``; other files there stay, an older checkpoint is replaced.

    Args:
        learner: with the adapters of its encoder.
        folder: made if absent. ``nlpmeta.json`` is replaced last, so a reader never takes a mixture for whole.
        facts: what is known of the training: recipe, data sets, languages left out, steps.
        storage: ``"float16"`` halves the size of the adapter.

    Raises:
        NLPMetaError: if the encoder was built in memory, so that it could not be found again, or the folder holds
            files of those names that are not of a checkpoint.
    """
    finish_save(folder)
    refuse_other_checkpoint_files(folder)
    with new_folder(folder / PARTS, overwrite=True, also=CHECKPOINT_FILES) as temporary:
        described = write_learner(temporary, learner, storage=storage)
        write_manifest(temporary, {"kind": "checkpoint", **described, "training": dict(facts)})
    finish_save(folder)


def refuse_other_checkpoint_files(folder: Path) -> None:
    """See that a checkpoint written into ``folder`` takes nobody's files away.

    Raises:
        NLPMetaError: names the first file that it would.
    """
    ours = listed_files(folder)
    for name in CHECKPOINT_FILES:
        if name not in ours and ((folder / name).is_symlink() or (folder / name).exists()):
            raise NLPMetaError(f"{folder / name} is not of a checkpoint and was not changed. Choose another folder.")
    if (folder / PARTS).is_symlink():
        raise NLPMetaError(f"{folder / PARTS} is a link and was not changed. Choose another folder.")


def load_checkpoint(
    folder: Path | str, *, max_length: int | None = None, device: Device = "auto", compiled: bool = False
) -> Learner:
    """The meta-trained learner in ``folder``, in evaluation mode, on an encoder of its own; see ``read_learner``.

    Raises:
        NLPMetaError: if there is no such folder.
        ModelFolderError: if it is damaged, incomplete or of a newer format.
        NetworkError: if the encoder is not on disk and cannot be fetched.
    """
    folder = whole_folder(Path(folder))
    return read_learner(folder, read_manifest(folder), max_length=max_length, device=device, compiled=compiled)


own_encoder = TextEncoder.from_pretrained
"""Loads an encoder that adapters can be put into."""
_own_encoder_once = lru_cache(maxsize=2)(own_encoder)


def shared_encoder(
    name: str,
    *,
    revision: str | None = None,
    prefix: str | None = None,
    max_length: int | None = None,
    window: int | None = None,
    normalise: bool = True,
    pooling: Pooling | None = None,
    device: Device = "auto",
) -> TextEncoder:
    """``own_encoder``, loaded once a process and device: frozen weights can be shared."""
    return _own_encoder_once(
        name,
        revision=revision,
        prefix=prefix,
        max_length=max_length,
        window=window,
        normalise=normalise,
        pooling=pooling,
        device=str(resolve_device(device)),
    )


def _encoder_facts(encoder: TextEncoder) -> dict[str, Json]:
    if encoder.files is None:
        raise NLPMetaError(
            "This encoder was built in memory, so a saved model could not find it again. "
            "Save it with save_pretrained and load it with TextEncoder.from_pretrained(folder)."
        )
    return {
        "id": encoder.files.name,
        "revision": encoder.files.revision,
        "digest": encoder.files.digest,
        "prefix": encoder.prefix,
        "max_length": encoder.max_length,
        **({} if encoder.windows is None else {"window": encoder.window}),
        **({"pairs": PAIR_FORM} if encoder.pairs else {}),
        "normalise": encoder.normalise,
        **({} if encoder.pooling == "mean" else {"pooling": encoder.pooling}),
    }


def _of_pairs(facts: Mapping[str, Json], folder: Path) -> bool:
    """Whether a model classifies pairs of texts.

    Raises:
        ModelFolderError: if it learned from embeddings of another form.
    """
    form = facts.get("pairs", False)
    if form is False:
        return False
    if form is True or form != PAIR_FORM:
        raise ModelFolderError(
            f"{folder} classifies pairs of texts and learned from embeddings of another form than those of this "
            "release. Fit it again to its examples."
        )
    return True


def _training_facts(manifest: Mapping[str, Json]) -> dict[str, Json] | None:
    """What a model keeps of how the adapters that it builds on were meta-trained."""
    training = manifest.get("training")
    known = ("recipe_digest", "sets", "leave_out_langs", "steps")
    return {key: training[key] for key in known if key in training} if isinstance(training, Mapping) else None


def _warn_of_other_weights(encoder: TextEncoder, digest: str) -> None:
    if encoder.files is not None and encoder.files.digest != digest:
        warnings.warn(
            f"The model was adapted on other weights of {encoder.files.name} than the ones found here "
            f"({encoder.files.origin}); its scores may differ a little.",
            DataWarning,
            stacklevel=3,
        )


def _options(value: Json) -> dict[str, Any]:
    """Options of a learner from an untrusted file: plain values within the size that an option may have."""
    options = dict(mapping(value))
    for name, option in options.items():
        if isinstance(option, str):
            _word(option)
        elif isinstance(option, int | float) and not abs(option) <= _LARGEST_NUMBER:
            raise ValueError(f"the option {name[:60]!r} is too large")
        elif option is not None and not isinstance(option, int | float):
            raise TypeError(f"the option {name[:60]!r} is not a plain value")
    return options


def _pooling(value: Json) -> "Pooling":
    if value not in get_args(Pooling):
        raise ValueError(f"there is no pooling {str(value)[:60]!r}")
    return cast("Pooling", value)


def _word(value: Json) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_WORD:
        raise TypeError("a text is missing or too long")
    value.encode()  # or it is a lone surrogate
    return value


def _number(value: Json) -> int:
    if type(value) is not int or not 0 < value <= _LARGEST_NUMBER:
        raise TypeError("a number is missing or too large")
    return value
