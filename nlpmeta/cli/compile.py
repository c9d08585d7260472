"""``nlpmeta compile``: an encoder compiled once; and what ``nlpmeta predict`` loads, compiled where possible."""

import sys
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, cast

import typer

from nlpmeta.cli.process import AsJson, loads_encoder
from nlpmeta.progress import clear_status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nlpmeta.classifier.classifier import FewShotClassifier
    from nlpmeta.classifier.light import LightClassifier
    from nlpmeta.encoder.engines import Agreement, Engine
    from nlpmeta.sources.file import Given

Predicts: TypeAlias = "FewShotClassifier | LightClassifier"

EXAMPLES = """Examples:

  nlpmeta compile my-model

  nlpmeta compile my-model --engine onnx-int8

  nlpmeta compile                       # the checkpoint that adaptation starts from
"""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        name="compile", epilog=EXAMPLES, short_help="Compile the encoder of a model, to answer faster on a CPU."
    )(loads_encoder(compile_))


def compile_(
    model: Annotated[
        str, typer.Argument(help="Folder of an adapted model, or a checkpoint by folder or name.")
    ] = "default",
    *,
    engine: Annotated[str, typer.Option(help="onnx (float32) or onnx-int8.")] = "onnx",
    json: AsJson = False,
) -> None:
    """Compile the encoder of a model into this user's cache and compare it with PyTorch.

    All models on one checkpoint share what was compiled; their folders are not changed. A float32 encoder whose
    embeddings differ from PyTorch's by more than 0.0001 in any number, or any encoder that classifies more than 5 % of
    a hundred sentences in 25 languages differently, is discarded.
    """
    from nlpmeta.encoder.engines import check_engine, check_packages
    from nlpmeta.errors import NLPMetaError
    from nlpmeta.learners.start import is_adapted

    chosen = check_engine(engine)
    if not chosen.startswith("onnx"):
        raise NLPMetaError("There is nothing to compile for torch; --engine takes onnx or onnx-int8.")
    check_packages()
    _report(_of_model(Path(model), chosen) if is_adapted(model) else _of_checkpoint(model, chosen), as_json=json)


def _of_model(folder: Path, engine: "Engine") -> "dict[str, Agreement | None]":
    from nlpmeta.classifier.classifier import FewShotClassifier
    from nlpmeta.export.head import compile_model

    classifier = FewShotClassifier.from_pretrained(folder, device="cpu")
    return {str(folder): compile_model(classifier, engine, folder)}


def _of_checkpoint(checkpoint: str, engine: "Engine") -> "dict[str, Agreement | None]":
    """The encoder of a checkpoint as ``auto`` reads it: with its adapters, and without them beside that."""
    from nlpmeta.auto.heads import ADAPTED, FROZEN, ScaledEncoder
    from nlpmeta.encoder.compiling import compile_encoder, compiled_name
    from nlpmeta.encoder.engines import CompiledEncoder, precision_of
    from nlpmeta.export.head import compile_names
    from nlpmeta.learners.start import checkpoint_folder, starting_learner

    learner = starting_learner("auto", checkpoint=checkpoint, device="cpu")
    found = {f"{checkpoint}, adapted": compile_names(learner, checkpoint_folder(checkpoint), engine)}
    if isinstance(learner.encoder, ScaledEncoder):
        both = learner.encoder.select((ADAPTED, FROZEN))
        name, precision = compiled_name(both, precision_of(engine)), precision_of(engine)
        sound = name is not None and CompiledEncoder.is_sound(name)
        found[f"{checkpoint}, adapted and frozen"] = None if sound else compile_encoder(both, precision)
    return found


def _report(found: "dict[str, Agreement | None]", *, as_json: bool) -> None:
    from nlpmeta.cli.console import out, out_json
    from nlpmeta.encoder.engines import compiled_home

    if as_json:
        out_json({"cache": str(compiled_home()), "compiled": found})
        return
    for what, agreement in found.items():
        if agreement is None:
            out(f"{what}: compiled already")
        else:
            changed = f"{100 * agreement.changed:.0f} % of {agreement.texts} sentences classified differently"
            out(f"{what}: compiled; largest difference {agreement.apart:.1g}, cosine {agreement.cosine:.4f}, {changed}")


def load_model(
    model: str, revision: str | None, *, device: str, engine: str, probabilities_alone: bool, quiet: bool = False
) -> Predicts:
    """The model by its folder or name; compiled first where ``engine`` says so.

    Args:
        model: a folder, or a name on the Hub.
        revision: of the Hub.
        device: where it runs.
        engine: what embeds the texts.
        probabilities_alone: whether nothing but class probabilities will be asked of it.
        quiet: whether to leave out the note that compiling makes this faster.

    Raises:
        NLPMetaError: if it cannot be loaded, or the engine is unknown or not installed.
    """
    from nlpmeta.encoder.engines import check_engine, on_cpu

    chosen = check_engine(engine)
    folder = Path(model) if revision is None and Path(model).is_dir() else None
    light = folder is not None and probabilities_alone and chosen != "torch" and on_cpu(device, chosen)
    if light and folder is not None:
        from nlpmeta.classifier.light import LightClassifier

        if (found := LightClassifier.of_folder(folder, chosen)) is not None:
            clear_status()
            return found
    from nlpmeta.classifier.classifier import FewShotClassifier
    from nlpmeta.export.head import compile_model

    classifier = FewShotClassifier.from_pretrained(model, revision=revision, device=device, engine=chosen)
    if folder is not None and (light or chosen.startswith("onnx")):
        _compile(classifier, chosen, partial(compile_model, classifier, folder=folder), str(folder), quiet=quiet)
    clear_status()
    return classifier


def load_names(
    names: "Sequence[str]",
    descriptions: object,
    full: "Callable[[Engine], FewShotClassifier]",
    *,
    checkpoint: str | None,
    device: str,
    engine: str,
    quiet: bool,
) -> Predicts:
    """A classifier of classes that are known by their names; without PyTorch where its checkpoint is compiled.

    Args:
        names: of the classes.
        descriptions: of classes, by their names.
        full: loads it with PyTorch.
        checkpoint: that ``auto`` starts from; ``None`` if it starts from something else.
        device: where it runs.
        engine: what embeds the texts.
        quiet: whether to leave out the note that compiling makes this faster.

    Raises:
        NLPMetaError: if it cannot be loaded, or the engine is unknown or not installed.
    """
    from nlpmeta.encoder.engines import check_engine, on_cpu
    from nlpmeta.storage.manifest import named_checkpoint

    chosen, folder = check_engine(engine), None
    if checkpoint is not None and chosen != "torch" and on_cpu(device, chosen):
        from nlpmeta.classifier.light import LightNames

        folder = named_checkpoint(checkpoint)
        if (light := LightNames.of_checkpoint(folder, chosen)) is not None:
            clear_status()
            return light.classifier(names, descriptions)
    classifier = full(chosen)
    if folder is not None and checkpoint is not None:
        from nlpmeta.export.head import compile_names

        keep, what = partial(compile_names, classifier.learner_, folder), "" if checkpoint == "default" else checkpoint
        _compile(classifier, chosen, keep, what, quiet=quiet)
    clear_status()
    return classifier


def reads(classifier: Predicts) -> tuple[int, int | None]:
    """The tokens that are read of a text, and those that the encoder could read."""
    from nlpmeta.classifier.light import LightClassifier

    if isinstance(classifier, LightClassifier):
        reader = cast("LightClassifier", classifier)  # the other kind has bases of unknown type
        return reader.encoder.max_length, reader.encoder.most_tokens
    encoder = loaded(classifier).learner_.encoder
    return encoder.max_length, encoder.most_tokens


def as_pairs(classifier: Predicts, batch: "list[Given]") -> "list[Given]":
    """Texts as pairs if the model classifies pairs: in a line a tab stands between the two texts.

    Raises:
        DataError: if a line is no pair.
    """
    from nlpmeta.classifier.light import LightClassifier
    from nlpmeta.data.inputs import Pair
    from nlpmeta.errors import DataError, visible

    found: list[Given] = []
    if isinstance(classifier, LightClassifier) or not loaded(classifier).learner_.encoder.pairs:
        return batch
    for given in batch:
        parts = [part.strip() for part in given.text.split("\t")]
        if not given.text or isinstance(given.text, Pair):
            found.append(given)
            continue
        if len(parts) != 2 or not all(parts):
            raise DataError(
                f"This model classifies pairs of texts, but text {given.line} is {visible(repr(given.text))[:60]}. "
                "Write a tab between the two, or give a table with the columns text_a and text_b."
            )
        found.append(replace(given, text=Pair.of(*parts)))
    return found


def loaded(classifier: Predicts) -> "FewShotClassifier":
    """The same model, which ``load_model`` loaded in full as more than probabilities was asked for."""
    return cast("FewShotClassifier", classifier)


def _compile(
    classifier: "FewShotClassifier", engine: "Engine", compiled: "Callable[[Engine], object]", what: str, *, quiet: bool
) -> None:
    """Compile what was loaded for this prediction and the next ones, or on a terminal mention that it can be.

    Args:
        classifier: what was loaded.
        engine: for ``auto``, what the next prediction needs is kept where its encoder is compiled already.
        compiled: compiles it.
        what: the argument of ``nlpmeta compile``.
        quiet: whether to mention nothing; a cache that cannot be written is mentioned all the same.
    """
    from nlpmeta.cli.console import say
    from nlpmeta.errors import WorkFailedError
    from nlpmeta.export.head import has_compiled

    there = True if engine.startswith("onnx") else has_compiled(classifier)
    if there is None:  # it has no compiled form
        return
    if not there:
        if not quiet and sys.stderr.isatty():
            first = "" if find_spec("onnxruntime") else "pip install 'nlpmeta[fast]' and "
            say(f"Tip: {first}{f'nlpmeta compile {what}'.strip()}: predictions and their start are then much faster.")
        return
    try:
        compiled("onnx" if engine == "auto" else engine)
    except WorkFailedError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        say(f"Note: {error} Predicting uncompiled.")
        classifier.engine = "torch"
