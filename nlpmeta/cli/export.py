"""``nlpmeta export``: a model for other libraries."""

from pathlib import Path
from typing import Annotated

import typer

from nlpmeta.cli.process import AsJson, Quiet, loads_encoder

EXAMPLES = """Examples:

  nlpmeta export my-model for-transformers

  nlpmeta export my-model for-search --to sentence-transformers

  nlpmeta export user/alarm-or-music small-server --to onnx
"""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=EXAMPLES)(loads_encoder(export))


def export(
    model: Annotated[str, typer.Argument(help="Folder of an adapted model, or user/name on the Hub.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    *,
    to: Annotated[str, typer.Option(help="transformers, sentence-transformers or onnx.")] = "transformers",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the Hub.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the export that is in the folder.")] = False,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Write a model for another library; its probabilities are the same to 1e-4, which is checked.

    The encoder is part of the folder, so it has some hundred MB. --overwrite replaces an export of ours; a folder that
    holds anything else stays as it is.
    """
    import warnings
    from typing import cast

    from nlpmeta.classifier.classifier import FewShotClassifier
    from nlpmeta.cli.console import out as say_result
    from nlpmeta.cli.console import out_json
    from nlpmeta.errors import DataWarning
    from nlpmeta.export import Form, check_export
    from nlpmeta.export import export as write

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
