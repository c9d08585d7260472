"""``nlpmeta classify``: labels for texts by the names of the labels alone, without a model and without examples."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlpmeta.cli.predict import InputFile, JsonLines, KeepColumns, Out, Overwrite, TableTextColumn, Texts, Top
from nlpmeta.cli.process import (
    Delimiter,
    DescriptionsFile,
    Device,
    EncoderName,
    Encoding,
    EngineName,
    MaxLength,
    NoHeader,
    Quiet,
    check_device,
    loads_encoder,
)
from nlpmeta.progress import clear_status

if TYPE_CHECKING:
    from nlpmeta.classifier.classifier import FewShotClassifier
    from nlpmeta.cli.answering import Predicts
    from nlpmeta.encoder.engines import Engine

EXAMPLES = """Examples:

  nlpmeta classify --labels "refund,complaint,praise" "nataka pesa yangu"

  nlpmeta classify --labels "refund,complaint,praise" --file tickets.csv --out labelled.csv

  nlpmeta classify --descriptions labels.csv --file texts.txt --json

  nlpmeta classify --labels "joy,anger,surprise" --multilabel "I never expected such a gift"

  cat texts.txt | nlpmeta classify --labels "sport,politics,health" --top 2
"""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=EXAMPLES, short_help="Label texts by the names of the labels, without examples.")(
        loads_encoder(classify)
    )


def classify(
    texts: Texts = None,
    *,
    labels: Annotated[
        str | None, typer.Option(help="Labels in words, comma-separated; by default those of --descriptions.")
    ] = None,
    descriptions: DescriptionsFile = None,
    file: InputFile = None,
    out: Out = None,
    overwrite: Overwrite = False,
    keep: KeepColumns = None,
    text_column: TableTextColumn = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    no_header: NoHeader = False,
    top: Top = None,
    multilabel: Annotated[bool, typer.Option("--multilabel", help="A text may have none or several labels.")] = False,
    json: JsonLines = False,
    method: Annotated[str, typer.Option(help="auto or prototypical.")] = "auto",
    encoder: EncoderName = None,
    checkpoint: Annotated[
        str, typer.Option(help="Checkpoint: default, none (frozen encoder), or a folder.")
    ] = "default",
    max_length: MaxLength = None,
    device: Device = "auto",
    engine: EngineName = "auto",
    quiet: Quiet = False,
) -> None:
    """Print label, probability and text of each text, as predict does, from the names of the labels alone.

    Labels must be words with a meaning, in any language; descriptions add to them. Nothing is measured or saved: adapt
    --shots 0 scores the names on labelled data, and adapt --shots 5 is more accurate, with five examples per class.
    """
    from nlpmeta.cli.answering import Columns
    from nlpmeta.cli.predict import answer
    from nlpmeta.cli.process import Wanted
    from nlpmeta.encoder.weights import DEFAULT_ENCODER
    from nlpmeta.sources.form import TableForm

    check_device(device)
    form = TableForm(delimiter=delimiter, encoding=encoding, header=not no_header)
    wanted = Wanted(
        tuple(texts or ()), file, form, text_column=text_column, keep=keep, out=out, overwrite=overwrite, json=json,
        quiet=quiet,
    )  # fmt: skip
    names, said = _named(labels, descriptions)

    def full(chosen: "Engine") -> "FewShotClassifier":
        from nlpmeta.classifier.classifier import FewShotClassifier

        return FewShotClassifier.from_names(
            names, descriptions=said, multilabel=multilabel, method=method, encoder=encoder or DEFAULT_ENCODER,
            checkpoint=checkpoint, max_length=max_length, device=device, engine=chosen,
        )  # fmt: skip

    usual = method == "auto" and encoder is None and max_length is None and not multilabel and checkpoint != "none"
    load = partial(_load_names, names, said, full, checkpoint=checkpoint if usual else None, device=device, quiet=quiet)
    answer(wanted, Columns(top=top), partial(load, engine=engine))


def _named(labels: str | None, descriptions: Path | None) -> tuple[list[str], dict[object, tuple[str, ...]] | None]:
    """The labels, and what is said of them.

    Raises:
        NLPMetaError: if there are none, fewer than two, or an empty one.
        DataError: if the descriptions cannot be read, or are of another label.
    """
    import numpy as np

    from nlpmeta.errors import NLPMetaError
    from nlpmeta.sources.loading import Descriptions

    if labels is None and descriptions is None:
        raise NLPMetaError('Name the labels: --labels "refund,complaint", or --descriptions FILE with label and text.')
    said = None if descriptions is None else Descriptions.of_file(descriptions)
    names = (
        list(said.texts)
        if labels is None and said is not None
        else [each.strip() for each in (labels or "").split(",")]
    )
    if not all(names):
        raise NLPMetaError(f"--labels holds an empty label: {labels!r}.")
    if len(names) < 2:
        raise NLPMetaError(f"A classifier needs at least two labels; there is one: {names[0]!r}.")
    return names, None if said is None else said.of(np.asarray(names))


def _load_names(
    names: Sequence[str],
    descriptions: object,
    full: "Callable[[Engine], FewShotClassifier]",
    *,
    checkpoint: str | None,
    device: str,
    engine: str,
    quiet: bool,
) -> "Predicts":
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
    from nlpmeta.cli.answering import compile_if_told
    from nlpmeta.encoder.engines import check_engine, takes_compiled
    from nlpmeta.storage.manifest import named_checkpoint

    chosen, folder = check_engine(engine), None
    if checkpoint is not None and takes_compiled(device, chosen):
        from nlpmeta.classifier.light import LightNames

        folder = named_checkpoint(checkpoint)
        if (light := LightNames.of_checkpoint(folder, chosen)) is not None:
            clear_status()
            return light.classifier(names, descriptions)
    classifier = full(chosen)
    if folder is not None and checkpoint is not None:
        from nlpmeta.export.head import compile_names

        keep, what = partial(compile_names, classifier.learner_, folder), "" if checkpoint == "default" else checkpoint
        compile_if_told(classifier, chosen, keep, what, quiet=quiet)
    clear_status()
    return classifier
