"""``nlpmeta compile``: an encoder compiled once, for predictions that start and run faster."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlpmeta.cli.process import AsJson, loads_encoder

if TYPE_CHECKING:
    from nlpmeta.encoder.engines import Agreement, Engine

EXAMPLES = """Examples:

  nlpmeta compile my-model

  nlpmeta compile my-model --engine onnx-int8

  nlpmeta compile                       # the checkpoint that adaptation starts from
"""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(name="compile", epilog=EXAMPLES)(loads_encoder(compile_))


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
    from nlpmeta.learners.start import starting_learner

    encoder = starting_learner("auto", checkpoint=checkpoint, device="cpu").encoder
    views = {f"{checkpoint}, adapted": encoder}
    if isinstance(encoder, ScaledEncoder):
        views = {
            f"{checkpoint}, adapted": encoder.select((ADAPTED,)),
            f"{checkpoint}, adapted and frozen": encoder.select((ADAPTED, FROZEN)),
        }
    found: dict[str, Agreement | None] = {}
    for what, each in views.items():
        name = compiled_name(each, precision_of(engine))
        found[what] = (
            None if name is not None and CompiledEncoder.is_sound(name) else compile_encoder(each, precision_of(engine))
        )
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
