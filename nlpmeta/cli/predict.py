"""``nlpmeta predict``: labels for texts from the command line, a file, or standard input."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlpmeta.cli.process import (
    Delimiter,
    Device,
    Encoding,
    EngineName,
    GivenTexts,
    LabelSeparator,
    NoHeader,
    Quiet,
    Wanted,
    given_texts,
    kept_columns,
    loads_encoder,
)

if TYPE_CHECKING:
    from nlpmeta.cli.answering import Columns, Predicts
    from nlpmeta.cli.predict_output import Writer
    from nlpmeta.sources.file import Given

EXAMPLES = """Examples:

  nlpmeta predict my-model "niamshe saa kumi na moja"

  nlpmeta predict my-model --file texts.txt --out labels.tsv

  nlpmeta predict my-model --file tickets.csv --out labelled.csv

  nlpmeta predict my-model --file tickets.xlsx --keep id,date --top 3 --out labelled.parquet

  cat texts.txt | nlpmeta predict my-model --json

  tail -f app.log | nlpmeta predict my-model

  nlpmeta predict my-model --abstain 0.9 "niamshe saa kumi na moja"

  nlpmeta predict my-model --out-of-scope "Thank you, all good"

  nlpmeta predict my-model --file texts.txt --threshold 0.6

  nlpmeta predict my-model --why "niamshe saa kumi na moja"

  nlpmeta predict my-model --file texts.txt --device cpu
"""

Model = Annotated[str, typer.Argument(help="Folder of an adapted model, or user/name on the Hub.")]
Texts = Annotated[list[str] | None, typer.Argument(help="Texts; without them --file or standard input.")]
InputFile = Annotated[
    Path | None, typer.Option(help="A text a line, or a table: CSV, TSV, JSON, JSONL, Parquet, xlsx, also .gz.")
]
Out = Annotated[
    Path | None,
    typer.Option(help="Output file, written atomically; .csv, .tsv, .jsonl or .parquet keep a table's columns."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file of --out.")]
KeepColumns = Annotated[
    str | None, typer.Option(help="Columns of the table to keep, comma-separated; by default all, for a table.")
]
TableTextColumn = Annotated[str | None, typer.Option(help="Text column of a table, if not obvious.")]
Top = Annotated[int | None, typer.Option(help="Return the N most probable labels with their probabilities.", min=1)]
Abstain = Annotated[
    float | None, typer.Option(help="Return label sets with this coverage (0.9), or abstain ('unsure').")
]
OutOfScope = Annotated[
    bool, typer.Option("--out-of-scope", help="Detect out-of-scope texts: score them, label them 'none of these'.")
]
Threshold = Annotated[
    float | None, typer.Option(help="Minimum probability; below it the label is 'none of these'.", min=0, max=1)
]
Why = Annotated[bool, typer.Option("--why", help="Show what the label hangs on: words of the text, examples.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the Hub.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=EXAMPLES, short_help="Label texts with a saved model.")(loads_encoder(predict))


def predict(
    model: Model,
    texts: Texts = None,
    *,
    file: InputFile = None,
    out: Out = None,
    overwrite: Overwrite = False,
    keep: KeepColumns = None,
    text_column: TableTextColumn = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    no_header: NoHeader = False,
    top: Top = None,
    abstain: Abstain = None,
    out_of_scope: OutOfScope = False,
    threshold: Threshold = None,
    label_separator: LabelSeparator = None,
    why: Why = False,
    json: JsonLines = False,
    device: Device = "auto",
    engine: EngineName = "auto",
    revision: Revision = None,
    quiet: Quiet = False,
) -> None:
    """Print label, probability and text of each text, tab-separated, as soon as they are known.

    One line comes out for each line or row that goes in, in order; an empty text gets an empty label. A table written
    with --out has the columns of --file and, added to them, label and probability (predicted_label and
    predicted_probability where the table has such columns).

    With --abstain a text gets one label where the model is sure, several (a | b) where it is not, or "unsure".

    With --out-of-scope (a model of auto) a further column says how probable it is that a text belongs to none of the
    classes; from 0.5 on its label is "none of these". With --threshold that is the label of a text whose probability,
    times that of being in scope where the model knows it, is lower.

    A model that gives several labels a text prints all whose probability reaches their threshold (or --threshold)
    with --label-separator between them, and none for a text that has none.

    With --why each text is followed by the words without which its label is less probable, and by the examples that
    speak most for its label and against it, where the model was saved with them (adapt --include-support).
    """
    from nlpmeta.cli.answering import Columns, load_model
    from nlpmeta.sources.form import TableForm

    columns = Columns(top, abstain, out_of_scope=out_of_scope, threshold=threshold, separator=label_separator or ";")
    form = TableForm(delimiter=delimiter, encoding=encoding, header=not no_header)
    wanted = Wanted(
        tuple(texts or ()), file, form, text_column=text_column, keep=keep, out=out, overwrite=overwrite, json=json,
        quiet=quiet,
    )  # fmt: skip
    alone = not why and abstain is None and not columns.may_refuse
    load = partial(load_model, model, revision, device=device, engine=engine, probabilities_alone=alone, quiet=quiet)
    if why:
        return _give_reasons(wanted, columns, load)
    answer(wanted, columns, load)


def _give_reasons(wanted: Wanted, columns: "Columns", load: "Callable[[], Predicts]") -> None:
    from nlpmeta.cli.answering import as_pairs, loaded
    from nlpmeta.cli.console import out_reasons
    from nlpmeta.errors import NLPMetaError

    if columns != type(columns)() or wanted.out or wanted.keep or (wanted.texts and wanted.file):
        raise NLPMetaError("--why goes with texts or --file, and with --json; give it without other kinds of answers.")
    batches = given_texts(wanted.texts, wanted.file, wanted.text_column, wanted.form).batches
    classifier = loaded(load())
    out_reasons(classifier, map(partial(as_pairs, classifier), batches), as_json=wanted.json, quiet=wanted.quiet)


def answer(wanted: Wanted, columns: "Columns", load: "Callable[[], Predicts]") -> None:
    """Classify the texts with what ``load`` gives, which is asked for once the request is known to be sound.

    Raises:
        NLPMetaError: if texts and a file are given, options exclude one another, or the file cannot be read or written.
    """
    from nlpmeta.cli.console import say
    from nlpmeta.cli.predict_output import check_columns, settled, writes_table
    from nlpmeta.errors import NLPMetaError

    out = wanted.out
    if wanted.texts and wanted.file:
        raise NLPMetaError("Give texts or --file, not both.")
    check_columns(columns, out, overwrite=wanted.overwrite)
    source = given_texts(wanted.texts, wanted.file, wanted.text_column, wanted.form)
    as_table = not wanted.json and writes_table(out, from_table=source.table is not None)
    kept = kept_columns(source, wanted.keep, as_table=as_table)
    nested = wanted.json or (out is not None and as_table and out.suffix.lower() in (".jsonl", ".ndjson"))
    classifier = load()
    columns = settled(columns, classifier, nested=nested)
    with _writer(out, classifier, columns, source, kept, as_table=as_table, as_json=wanted.json) as write:
        done = _predict(classifier, source.batches, write, columns, quiet=wanted.quiet)
    if out is not None and not wanted.quiet:
        say(f"{done} predictions in {out}")


def _writer(
    out: Path | None,
    classifier: "Predicts",
    columns: "Columns",
    source: GivenTexts,
    kept: tuple[str, ...],
    *,
    as_table: bool,
    as_json: bool,
) -> "AbstractContextManager[Writer]":
    from nlpmeta.cli.predict_output import Layout, line_writer, schema_for, table_writer

    names = columns.names(len(classifier.classes_))
    has_text = not as_table or source.table is None
    layout = Layout.of(kept, names, text=has_text, header=source.form.header)
    if not as_table or out is None:
        return line_writer(out, layout, as_json=as_json)
    classes = ["as text"] if columns.is_text else classifier.classes_.tolist()
    return table_writer(out, layout, lambda: schema_for(layout, source.table, source.form, classes))


def _predict(
    classifier: "Predicts",
    batches: "Iterator[list[Given]]",
    write: "Writer",
    columns: "Columns",
    *,
    quiet: bool,
) -> int:
    """Answer batch after batch, and return how many texts there were."""
    from nlpmeta.cli.answering import answers, as_pairs, reads
    from nlpmeta.cli.console import say
    from nlpmeta.encoder.tokenizing import Cut, cut_texts
    from nlpmeta.progress import track

    done, empty, first, n_cut = 0, 0, 0, 0
    with track("Predicting", None, show=not quiet) as advance:
        for batch in batches:
            with cut_texts() as cut:
                batch = as_pairs(classifier, batch)
                write(list(zip(batch, answers(classifier, [each.text for each in batch], columns), strict=True)))
            n_cut += sum(each.text in cut for each in batch)
            blank = [each.line for each in batch if not each.text]
            empty, first = empty + len(blank), first or (blank[0] if blank else 0)
            done += len(batch)
            advance(len(batch))
    if empty and not quiet:
        what = "text is" if empty == 1 else "texts are"
        say(f"Note: {empty} {what} empty and got no label (the first: line {first}).")
    if n_cut and not quiet:
        cut_off = Cut(n_cut, done, *reads(classifier))
        say(f"Note: {cut_off.message('nlpmeta adapt --max-length')}")
    return done
