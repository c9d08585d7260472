"""``nlpmeta predict``: labels for texts from the command line, a file, or standard input."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlpmeta.cli.process import Delimiter, Device, Encoding, NoHeader, Quiet, loads_encoder

if TYPE_CHECKING:
    from nlpmeta.classifier.classifier import FewShotClassifier
    from nlpmeta.cli.predict_output import Columns, Writer
    from nlpmeta.sources.file import Given
    from nlpmeta.sources.form import TableForm

CHUNK = 4096  # texts in memory at a time from a file; long enough to sort by length well
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
JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the Hub.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=EXAMPLES)(loads_encoder(predict))


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
    json: JsonLines = False,
    device: Device = "auto",
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
    """
    from nlpmeta.cli.console import say
    from nlpmeta.cli.predict_output import Columns, writes_table
    from nlpmeta.errors import NLPMetaError
    from nlpmeta.sources.form import TableForm

    columns = Columns(top=top, coverage=abstain, out_of_scope=out_of_scope, threshold=threshold)
    if texts and file:
        raise NLPMetaError("Give texts or --file, not both.")
    _check(columns, out, overwrite=overwrite)
    form = TableForm(delimiter=delimiter, encoding=encoding, header=not no_header)
    source = _source(texts, file, text_column, form)
    as_table = not json and writes_table(out, from_table=source.table is not None)
    kept = _kept(source, keep, as_table=as_table)
    nested = json or (out is not None and as_table and out.suffix.lower() in (".jsonl", ".ndjson"))
    classifier = _load(model, revision, device)
    columns = _settled(columns, classifier, nested=nested)
    with _writer(out, classifier, columns, source, kept, as_table=as_table, as_json=json) as write:
        done = _predict(classifier, source.batches, write, columns, quiet=quiet)
    if out is not None and not quiet:
        say(f"{done} predictions in {out}")


def _check(columns: "Columns", out: Path | None, *, overwrite: bool) -> None:
    """Refuse options that exclude one another, and a file that is there already.

    Raises:
        NLPMetaError: if there are such.
    """
    from nlpmeta.errors import NLPMetaError

    if columns.top is not None and columns.coverage is not None:
        raise NLPMetaError("Give --top or --abstain, not both.")
    if columns.coverage is not None and (columns.out_of_scope or columns.threshold is not None):
        raise NLPMetaError("--abstain names several labels; give it without --out-of-scope and --threshold.")
    if out is not None and out.exists() and not overwrite:
        raise NLPMetaError(f"{out} already exists and was kept. Pass --overwrite to replace it.")


def _load(model: str, revision: str | None, device: str) -> "FewShotClassifier":
    from nlpmeta.classifier.classifier import FewShotClassifier
    from nlpmeta.progress import clear_status

    classifier = FewShotClassifier.from_pretrained(model, revision=revision, device=device)
    clear_status()
    return classifier


def _settled(columns: "Columns", classifier: "FewShotClassifier", *, nested: bool) -> "Columns":
    """The columns that this model can fill: a threshold takes the out-of-scope score in where the model has one."""
    from nlpmeta.auto.answers import knows_scope

    scored = columns.out_of_scope or (columns.threshold is not None and knows_scope(classifier.fitted_.predictor))
    return replace(columns, nested=nested, out_of_scope=scored)


@dataclass(frozen=True)
class _Source:
    """The texts in batches, and the table that they are from, if they are."""

    batches: "Iterator[list[Given]]"
    form: "TableForm"
    table: Path | None = None


def _source(texts: list[str] | None, file: Path | None, text_column: str | None, form: "TableForm") -> _Source:
    from nlpmeta.cli.console import says_how_to_type
    from nlpmeta.errors import NLPMetaError
    from nlpmeta.sources.file import Given, arriving, given_of_file
    from nlpmeta.sources.tables import is_table

    if file is not None:
        given = given_of_file(file, text_column, form)
        return _Source(_chunks(given), form, file if is_table(file) else None)
    if text_column is not None or form.delimiter is not None or not form.header or (texts and form.encoding):
        raise NLPMetaError("Options of a table go with --file; give the table a name that ends in .csv, .tsv, …")
    if texts:
        return _Source(_chunks(Given(text.strip(), number) for number, text in enumerate(texts, start=1)), form)
    says_how_to_type(sys.stdin)
    return _Source(_chunked(arriving(sys.stdin.buffer, "standard input", form.encoding)), form)  # type: ignore[arg-type]


def _chunks(given: "Iterable[Given]") -> "Iterator[list[Given]]":
    rest = iter(given)
    while batch := list(islice(rest, CHUNK)):
        yield batch


def _chunked(arriving: "Iterator[list[Given]]") -> "Iterator[list[Given]]":
    return (batch for lines in arriving for batch in _chunks(lines))


def _kept(source: _Source, keep: str | None, *, as_table: bool) -> tuple[str, ...]:
    """The columns of the table that came in to write out again.

    Raises:
        NLPMetaError: if there is no table, or it has no such column.
    """
    from nlpmeta.errors import NLPMetaError, visible
    from nlpmeta.sources.columns import find
    from nlpmeta.sources.tables import columns_of

    if keep is None and not as_table:
        return ()
    if source.table is None:
        if keep is not None:
            raise NLPMetaError("--keep names columns of a table; give one with --file.")
        return ()
    found = columns_of(source.table, source.form)
    if keep is None:
        return found
    kept = []
    for name in filter(None, map(str.strip, keep.split(","))):
        column = find([name], found, where=str(source.table))
        if column is None:
            there = visible(", ".join(found))
            raise NLPMetaError(f"{source.table} has no column {visible(repr(name))} to keep; it has {there}.")
        kept.append(column)
    return tuple(dict.fromkeys(kept))


def _writer(
    out: Path | None,
    classifier: "FewShotClassifier",
    columns: "Columns",
    source: _Source,
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
    classes = ["as text"] if columns.coverage is not None or columns.may_refuse else classifier.classes_.tolist()
    return table_writer(out, layout, lambda: schema_for(layout, source.table, source.form, classes))


def _predict(
    classifier: "FewShotClassifier",
    batches: "Iterator[list[Given]]",
    write: "Writer",
    columns: "Columns",
    *,
    quiet: bool,
) -> int:
    """Answer batch after batch, and return how many texts there were."""
    from nlpmeta.cli.console import say
    from nlpmeta.cli.predict_output import answers
    from nlpmeta.encoder.tokenizing import Cut, cut_texts
    from nlpmeta.progress import track

    done, empty, first, n_cut = 0, 0, 0, 0
    with track("Predicting", None, show=not quiet) as advance:
        for batch in batches:
            with cut_texts() as cut:
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
        encoder = classifier.learner_.encoder
        cut_off = Cut(n_cut, done, encoder.max_length, encoder.most_tokens)
        say(f"Note: {cut_off.message('nlpmeta adapt --max-length')}")
    return done
