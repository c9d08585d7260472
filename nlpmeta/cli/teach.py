"""``nlpmeta teach``: more examples for a model in use."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlpmeta.cli.process import (
    AsJson,
    Delimiter,
    DescriptionsFile,
    Device,
    Encoding,
    EngineName,
    LabelColumn,
    NoHeader,
    TextColumn,
    loads_encoder,
)

if TYPE_CHECKING:
    from nlpmeta.classifier.teaching import Taught
    from nlpmeta.sources import Source

EXAMPLES = """Examples:

  nlpmeta adapt --data mine.csv --shots all --include-support --out my-model

  nlpmeta teach my-model "nataka pesa yangu" --label refund

  nlpmeta teach my-model --data more.csv

  nlpmeta teach my-model --data more.csv --out my-model-2 --json

  nlpmeta teach my-model --descriptions labels.csv
"""
_FEW = 30  # scored examples: below this a figure says little


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=EXAMPLES)(loads_encoder(teach))


def teach(
    model: Annotated[str, typer.Argument(help="Folder of a model that was made with --include-support.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts of the class that --label names.")] = None,
    *,
    label: Annotated[str | None, typer.Option(help="The class of the texts; may be a new one.")] = None,
    data: Annotated[str | None, typer.Option(help="Table of texts and labels, as for adapt.")] = None,
    descriptions: DescriptionsFile = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    no_header: NoHeader = False,
    device: Device = "auto",
    engine: EngineName = "auto",
    out: Annotated[Path | None, typer.Option(help="New folder for the result; the model itself by default.")] = None,
    json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes.")] = False,
) -> None:
    """Add examples and classes to an adapted model, say what changes on the examples it holds, and save it.

    Accuracy is by cross-validation over the examples of the model, before and after. Examples that the model holds
    already are skipped. The folder is replaced when the new model is complete, or stays as it was.
    """
    from nlpmeta.classifier.classifier import FewShotClassifier
    from nlpmeta.classifier.persistence import REPORT_FILE
    from nlpmeta.classifier.teaching import labels_like, report_after
    from nlpmeta.classifier.teaching import teach as learn
    from nlpmeta.cli.console import out_json
    from nlpmeta.data.labels import checked_labels, joined
    from nlpmeta.encoder.engines import check_engine
    from nlpmeta.sources.form import TableForm
    from nlpmeta.sources.loading import Descriptions, load_source
    from nlpmeta.storage.manifest import optional_json

    target = _target(model, out)
    form = TableForm(delimiter=delimiter, encoding=encoding, header=not no_header)
    read = partial(load_source, text_column=text_column, label_column=label_column, form=form)
    said = None if descriptions is None else Descriptions.of_file(descriptions)
    new, names = _examples(texts or [], label, data, read) if texts or label or data or said is None else ([], [])
    classifier = FewShotClassifier.from_pretrained(model, device=device, engine=check_engine(engine))
    labels = labels_like(classifier.classes_, names)
    classes = joined(classifier.classes_, checked_labels(labels)) if labels else classifier.classes_
    taught = learn(classifier, new, labels, descriptions=None if said is None else said.of(classes))
    if taught.changes or out is not None:
        report = report_after(optional_json(Path(model) / REPORT_FILE), taught, classifier)
        keeps = classifier.fitted_.examples is not None  # a method that reads a stream keeps none
        classifier.save_pretrained(target, overwrite=out is None, report=report, include_support=keeps)
    if json:
        out_json({**taught.json(), "n_way": len(classifier.classes_), "out": str(target)})
    else:
        _show(taught, target, quiet=quiet)


def _target(model: str, out: Path | None) -> Path:
    """Where the result goes; refused before any work if it cannot.

    Raises:
        NLPMetaError: if the model is not a folder here and no other is named, or that one exists.
    """
    from nlpmeta.errors import NLPMetaError

    if out is None and not Path(model).is_dir():
        raise NLPMetaError(f"There is no model folder {model!r} here to be saved to; name a new one with --out.")
    if out is not None and out.exists():
        raise NLPMetaError(f"{out} already exists and was kept; name a new folder.")
    return out or Path(model)


def _examples(
    texts: list[str], label: str | None, data: str | None, read: "Callable[[str], Source]"
) -> tuple[list[str], list[str]]:
    """The new texts and the label of each.

    Raises:
        NLPMetaError: if there are none, or texts without a label.
    """
    from nlpmeta.errors import NLPMetaError

    if bool(texts) != (label is not None):
        raise NLPMetaError('Texts and --label go together: nlpmeta teach MODEL "a text" --label NAME.')
    if not texts and data is None:
        raise NLPMetaError("Nothing to teach: give --data FILE, --descriptions FILE, or texts with --label.")
    labels = [label or ""] * len(texts)
    if data is None:
        return texts, labels
    table = read(data).load()
    return [*texts, *table.texts], [*labels, *table.names()]


def _show(taught: "Taught", target: Path, *, quiet: bool) -> None:
    from nlpmeta.cli.console import out, out_table, printable, say

    if not quiet and taught.n_known:
        some = "1 example is" if taught.n_known == 1 else f"{taught.n_known} examples are"
        say(f"Note: {some} in the model already; skipped.")
    if not quiet and taught.n_other_label:
        some = "1 text is" if taught.n_other_label == 1 else f"{taught.n_other_label} texts are"
        say(f"Note: {some} in the model under another label too; kept under each.")
    if not taught.changes:
        out(f"Nothing new: {target} stays as it is")
        return
    if taught.described:
        out(printable(f"Described: {', '.join(taught.described)}"))
    named = (f"{name}{' (new)' if name in taught.new_classes else ''} {n}" for name, n in taught.new.items())
    if taught.new:
        n_new = sum(taught.new.values())
        out(printable(f"Learned {n_new} {'example' if n_new == 1 else 'examples'}: {', '.join(named)}"))
    rows = [
        (name, str(held))
        for name, held in (
            ("before", taught.before),
            ("after, on the same examples", taught.after_on_earlier),
            ("after, with the new ones", taught.after),
        )
        if held is not None
    ]
    if rows:
        out_table(("examples of the model", "accuracy by cross-validation"), rows)
        if not quiet and taught.after is not None and taught.after.n < _FEW:
            some = "1 scored example says" if taught.after.n == 1 else f"{taught.after.n} scored examples say"
            say(f"Note: {some} little; a difference of one or two is chance.")
    else:
        out("No accuracy: nothing can be held out of the examples")
    out(f"Saved: {target}")
