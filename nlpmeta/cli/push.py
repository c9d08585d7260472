"""``nlpmeta push``, ``export`` and ``compile``: a model for the Hub, for other libraries, and for fast prediction."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlpmeta.cli.process import AsJson, Quiet, loads_encoder

if TYPE_CHECKING:
    from nlpmeta.encoder.compiling import Agreement
    from nlpmeta.encoder.engines import Engine
    from nlpmeta.sharing import Sharing
    from nlpmeta.storage.hub_push import Pushed, Target

EXAMPLES = """Examples:

  nlpmeta push my-model user/alarm-or-music --dry-run

  nlpmeta push my-model user/alarm-or-music --licence apache-2.0

  nlpmeta push my-model user/alarm-or-music --pr

The token comes from 'hf auth login' or HF_TOKEN.
"""
EXPORT_EXAMPLES = """Examples:

  nlpmeta export my-model for-transformers

  nlpmeta export my-model for-search --to sentence-transformers

  nlpmeta export user/alarm-or-music small-server --to onnx

  nlpmeta export my-model phone --to onnx --int8
"""

COMPILE_EXAMPLES = """Examples:

  nlpmeta compile my-model

  nlpmeta compile my-model --engine onnx-int8

  nlpmeta compile                       # the checkpoint that adaptation starts from
"""


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(epilog=EXAMPLES, short_help="Push a model and its card to the Hugging Face Hub.")(push)
    app.command(epilog=EXPORT_EXAMPLES, short_help="Write a model for transformers, sentence-transformers or ONNX.")(
        loads_encoder(export)
    )
    app.command(
        name="compile", epilog=COMPILE_EXAMPLES, short_help="Compile a model's encoder for faster CPU predictions."
    )(loads_encoder(compile_))


def push(
    model: Annotated[Path, typer.Argument(help="Folder of an adapted model or a checkpoint.")],
    name: Annotated[str, typer.Argument(help="Where to: user/name.")],
    *,
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Visibility of a new repository (default: private).")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, created if absent.")] = None,
    pr: Annotated[bool, typer.Option("--pr", help="Open a pull request.")] = False,
    licence: Annotated[str | None, typer.Option(help="Licence of the model, such as apache-2.0.")] = None,
    lang: Annotated[str | None, typer.Option(help="Languages of the examples, comma-separated.")] = None,
    include_support: Annotated[bool, typer.Option("--include-support", help="Publish the examples too.")] = False,
    message: Annotated[str | None, typer.Option(help="First line of the commit.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the card, files and sizes; send nothing.")] = False,
    json: AsJson = False,
) -> None:
    """Push a model and its card in one commit; examples are published only with --include-support.

    The card is the README.md of the model if you edited it, and is generated otherwise.

    Pushing again uploads only what changed.
    """
    from nlpmeta.sharing import Sharing, owned_target, push_model

    target = owned_target(name, private=private, revision=revision, as_pull_request=pr)
    languages = tuple(each.strip() for each in (lang or "").split(",") if each.strip())
    _ask_for_what_is_missing(licence, languages, model)
    sharing = Sharing(licence=licence, languages=languages, include_support=include_support, message=message)
    if dry_run:
        _plan(model, target, sharing, as_json=json)
    else:
        _report(push_model(model, target, sharing), as_json=json)


def _ask_for_what_is_missing(licence: str | None, languages: tuple[str, ...], model: Path) -> None:
    """Say what the card leaves out because nobody stated it."""
    from nlpmeta.cli.console import say
    from nlpmeta.sharing import edited_card
    from nlpmeta.storage.manifest import optional_json

    if edited_card(model) is not None:
        say("Note: README.md of the model was changed; it is pushed as it stands, with --licence and --lang if given.")
        return
    if licence is None:
        say("Note: no licence was given, so the card names none; state one with --licence apache-2.0, for instance.")
    if not languages and not optional_json(model / "report.json").get("lang"):
        say("Note: the language of the examples is not known, so the card names none; state it with --lang sw.")


def _plan(model: Path, target: "Target", sharing: "Sharing", *, as_json: bool) -> None:
    from nlpmeta.cli.console import out, out_json, out_table
    from nlpmeta.sharing import plan

    files, card = plan(model, target, sharing)
    if as_json:
        out_json({"name": target.name, "files": files, "card": card})
        return
    out(f"{card.rstrip()}\n")
    out_table(("file", "bytes"), [(file.name, f"{file.bytes:,}") for file in files])
    out(f"{len(files)} files, {sum(file.bytes for file in files):,} bytes; nothing was sent.")


def _report(pushed: "Pushed", *, as_json: bool) -> None:
    from nlpmeta.cli.console import out, out_json

    if as_json:
        out_json(pushed)
        return
    who = "private" if pushed.private else "public"
    out(f"{pushed.url} ({'new, ' if pushed.created else ''}{who})")
    if not pushed.changed and not pushed.deleted:
        out("Everything was there already; nothing was changed.")
        return
    where = f"pull request {pushed.pull_request}" if pushed.pull_request else f"commit {pushed.commit[:12]}"
    gone = f", {len(pushed.deleted)} removed" if pushed.deleted else ""
    out(f"{len(pushed.changed)} files in one {where}{gone}")


def export(
    model: Annotated[str, typer.Argument(help="Folder of an adapted model, or user/name on the Hub.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    *,
    to: Annotated[str, typer.Option(help="transformers, sentence-transformers, onnx or onnx-int8.")] = "transformers",
    int8: Annotated[bool, typer.Option("--int8", help="For onnx: 8-bit weights.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the Hub.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the export that is in the folder.")] = False,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Write a model for another library; its probabilities are the same to 1e-4, which is checked.

    The folder contains the encoder, so it takes several hundred MB. --overwrite replaces an earlier export; a folder
    with anything else in it is left alone. An onnx folder also has predict.py, which needs only onnxruntime, tokenizers
    and numpy; with --int8, probabilities differ from the model's. Models with several labels per text can be exported
    to transformers and onnx.
    """
    import warnings
    from typing import cast

    from nlpmeta.classifier.classifier import FewShotClassifier
    from nlpmeta.cli.console import out as say_result
    from nlpmeta.cli.console import out_json
    from nlpmeta.errors import DataWarning, NLPMetaError
    from nlpmeta.export import Form, check_export
    from nlpmeta.export import export as write

    if int8 and to != "onnx":
        raise NLPMetaError(f"--int8 goes with --to onnx, not with --to {to}.")
    to = "onnx-int8" if int8 else to
    check_export(out, to, overwrite=overwrite)
    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore", DataWarning)
        classifier = FewShotClassifier.from_pretrained(model, revision=revision, device="cpu")
        write(classifier, out, cast("Form", to), overwrite=overwrite)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    if json:
        out_json({"out": str(out), "form": to, "bytes": size})
    else:
        say_result(f"{out} ({to}, {size / 1e6:.0f} MB)")


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
    _report_compiled(
        _of_model(Path(model), chosen) if is_adapted(model) else _of_checkpoint(model, chosen), as_json=json
    )


def _of_model(folder: Path, engine: "Engine") -> "dict[str, Agreement | None]":
    from nlpmeta.classifier.classifier import FewShotClassifier
    from nlpmeta.export.head import compile_model

    classifier = FewShotClassifier.from_pretrained(folder, device="cpu")
    return {str(folder): compile_model(classifier, engine, folder)}


def _of_checkpoint(checkpoint: str, engine: "Engine") -> "dict[str, Agreement | None]":
    """The encoder of a checkpoint as ``auto`` reads it: the views of the adapted pass, and those of both passes."""
    from nlpmeta.encoder.compiling import compile_encoder, compiled_name
    from nlpmeta.encoder.engines import CompiledEncoder, precision_of
    from nlpmeta.encoder.merged import INNER
    from nlpmeta.encoder.views import ADAPTED, ScaledEncoder
    from nlpmeta.export.head import compile_names
    from nlpmeta.learners.start import checkpoint_folder, starting_learner

    learner, found = starting_learner("auto", checkpoint=checkpoint, device="cpu"), dict[str, "Agreement | None"]()
    if isinstance(learner.encoder, ScaledEncoder):
        # What one pass gives, and what all models are fitted on.
        every = {"adapted": learner.encoder.select((ADAPTED, INNER)), "adapted and frozen": learner.encoder}
        for views, encoder in every.items():
            name, precision = compiled_name(encoder, precision_of(engine)), precision_of(engine)
            sound = name is not None and CompiledEncoder.is_sound(name)
            found[f"{checkpoint}, {views}"] = None if sound else compile_encoder(encoder, precision)
    names = compile_names(learner, checkpoint_folder(checkpoint), engine)
    return found or {f"{checkpoint}, adapted": names}


def _report_compiled(found: "dict[str, Agreement | None]", *, as_json: bool) -> None:
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
