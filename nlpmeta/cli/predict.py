"""``nlpmeta predict``: labels for texts from the command line, a file, many files, or standard input."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
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
    chunks,
    given_texts,
    kept_columns,
    loads_encoder,
)

if TYPE_CHECKING:
    from nlpmeta.bulk.partitions import Answered, Work
    from nlpmeta.cli.answering import Columns, Predicts

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

  nlpmeta predict my-model --file 'texts/*.parquet' --out labels --workers 4

  nlpmeta predict my-model --file 's3://bucket/texts/**/*.jsonl.gz' --out s3://bucket/labels --ray auto --workers 64
"""

Model = Annotated[str, typer.Argument(help="Folder of an adapted model, or user/name on the Hub.")]
Texts = Annotated[list[str] | None, typer.Argument(help="Texts; without them --file or standard input.")]
InputFile = Annotated[
    Path | None, typer.Option(help="A text a line, or a table: CSV, TSV, JSON, JSONL, Parquet, xlsx, also .gz.")
]
InputFiles = Annotated[
    Path | None,
    typer.Option(
        help="A text a line, or a table: CSV, TSV, JSON, JSONL, Parquet, xlsx, also .gz. Many tables: a pattern or "
        "URL, 'texts/*.parquet', 's3://bucket/*.csv'."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="Output file, written atomically; .csv, .tsv, .jsonl or .parquet keep a table's columns."),
]
OutOrFolder = Annotated[
    Path | None,
    typer.Option(
        help="Output file, written atomically; .csv, .tsv, .jsonl or .parquet keep a table's columns. For many tables: "
        "a folder or URL, with a file for each."
    ),
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
Why = Annotated[bool, typer.Option("--why", help="Show what the label depends on: words of the text, examples.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
Workers = Annotated[
    int | None, typer.Option(help="Processes that predict many tables, each on one core (default: 1).", min=1)
]
OnRay = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="Run the workers on a Ray cluster: auto, its address, or local."),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the Hub.")]

_NOTES = 20  # of many files, so many are said


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=EXAMPLES, short_help="Label texts with a saved model.")(loads_encoder(predict))


def predict(
    model: Model,
    texts: Texts = None,
    *,
    file: InputFiles = None,
    out: OutOrFolder = None,
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
    workers: Workers = None,
    ray: OnRay = None,
    quiet: Quiet = False,
) -> None:
    """Print label, probability and text of each text, tab-separated, as soon as they are known.

    There is one output line per input line or row, in order; an empty text gets an empty label. A table written with
    --out has the columns of --file, then label and probability (prefixed with predicted_ where those are taken).

    With --abstain a text gets one label where the model is sure, several (a | b) where it is not, or "unsure".

    With --out-of-scope (method auto) a further column has the probability that a text belongs to none of the classes;
    from 0.5 on, its label is "none of these". With --threshold that is also the label of a text whose probability
    (times that of being in scope, where the model estimates it) is lower.

    A multi-label model prints every label whose probability reaches its threshold (or --threshold), separated by
    --label-separator, and nothing where there is none.

    With --why each text is followed by the words without which its label is less probable, and by the examples that
    speak most for and against its label, if the model was saved with them (adapt --include-support).

    With a pattern in --file, each table gives one in --out. Tables that an earlier run finished are skipped.
    """
    from nlpmeta.bulk.partitions import is_many
    from nlpmeta.cli.answering import Columns, give_reasons, load_model
    from nlpmeta.sources.form import TableForm

    columns = Columns(top, abstain, out_of_scope=out_of_scope, threshold=threshold, separator=label_separator or ";")
    form = TableForm(delimiter=delimiter, encoding=encoding, header=not no_header)
    wanted = Wanted(
        tuple(texts or ()), file, form, text_column=text_column, keep=keep, out=out, overwrite=overwrite, json=json,
        quiet=quiet,
    )  # fmt: skip
    alone = not why and columns.are_probabilities
    load = partial(load_model, device=device, engine=engine, probabilities_alone=alone, quiet=quiet)
    if is_many(file) or workers is not None or ray is not None:
        return predict_partitions(wanted, columns, load, model, revision, workers=workers or 1, ray=ray, why=why)
    (give_reasons if why else answer)(wanted, columns, partial(load, model, revision))


def answer(wanted: Wanted, columns: "Columns", load: "Callable[[], Predicts]") -> None:
    """Classify the texts with what ``load`` gives, which is asked for once the request is known to be sound.

    Raises:
        NLPMetaError: if texts and a file are given, options exclude one another, or the file cannot be read or written.
    """
    from nlpmeta.cli.console import say
    from nlpmeta.cli.predict_output import answer_all, check_columns, settled, writer_for, writes_table
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
    with writer_for(out, classifier, columns, source, kept, as_table=as_table, as_json=wanted.json) as write:
        done = answer_all(classifier, source.batches, write, columns, quiet=wanted.quiet)
    if out is not None and not wanted.quiet:
        say(f"{done} predictions in {out}")


@dataclass(frozen=True)
class PartitionTask:
    """What a worker is given: it loads the model there, and answers each partition as ``answer`` does a file."""

    wanted: Wanted
    columns: "Columns"
    load: "Callable[[], Predicts]"

    def __call__(self) -> "Work":
        """Load the model."""
        return partial(_answer_partition, self.wanted, self.columns, self.load())


def predict_partitions(
    wanted: Wanted,
    columns: "Columns",
    load: "partial[Predicts]",
    model: str,
    revision: str | None,
    *,
    workers: int,
    ray: str | None,
    why: bool,
) -> None:
    """Predict every table that ``--file`` means and that no former run has finished.

    Raises:
        NLPMetaError: if the request is not sound.
        WorkFailedError: if a partition failed; the others are done.
    """
    from nlpmeta.bulk import check_ray, outcomes
    from nlpmeta.bulk.partitions import facts_of, partitions, spelled
    from nlpmeta.cli.console import say
    from nlpmeta.cli.predict_output import check_columns
    from nlpmeta.encoder.engines import check_engine
    from nlpmeta.errors import NLPMetaError, WorkFailedError
    from nlpmeta.progress import track

    if why:
        raise NLPMetaError("--why goes with texts or one file.")
    if wanted.texts or wanted.file is None or wanted.out is None or wanted.json:
        raise NLPMetaError("--workers, --ray and patterns go with --file and --out FOLDER, without texts and --json.")
    check_columns(columns, None, overwrite=wanted.overwrite)
    check_engine(load.keywords["engine"])
    if ray is not None:
        check_ray()
    every = partitions(spelled(wanted.file), spelled(wanted.out))
    setting = {**asdict(columns), **asdict(wanted.form), "text_column": wanted.text_column, "keep": wanted.keep}
    facts, commit = facts_of(model, revision, setting | {name: load.keywords[name] for name in ("device", "engine")})
    waiting = [each for each in every if not each.is_done(facts, overwrite=wanted.overwrite)]
    task = PartitionTask(wanted, columns, partial(load, model, commit))
    rows, without, wrong, noted = 0, 0, list[str](), list[str]()
    with track("Predicting, in files", len(waiting), show=not wanted.quiet) as advance:
        for each in outcomes(waiting, task, facts, workers=workers, ray=ray):
            rows, without = rows + each.rows, without + each.failed
            wrong += [] if each.error is None else [each.error]
            noted += each.notes
            advance(1)
    if not wanted.quiet:
        for note in noted[:_NOTES]:
            say(f"Note: {note}")
        if without:
            say(f"Note: {without} of {rows} rows got no label; beside their files, _*.failed.jsonl says which and why.")
        former = f"; {len(every) - len(waiting)} were there" if len(every) > len(waiting) else ""
        done = len(waiting) - len(wrong)
        say(f"{rows} predictions in {done} file{'' if done == 1 else 's'} of {wanted.out}{former}")
    for error in wrong[1:_NOTES]:
        say(f"Failed: {error}")
    if wrong:
        again = "Run the same command again to retry them."
        raise WorkFailedError(f"{len(wrong)} of {len(every)} files failed, the first: {wrong[0]} {again}")


def _answer_partition(
    wanted: Wanted, columns: "Columns", classifier: "Predicts", source: Path, out: Path
) -> "Answered":
    from nlpmeta.bulk.partitions import Answered
    from nlpmeta.cli.answering import answered
    from nlpmeta.cli.console import json_line
    from nlpmeta.cli.predict_output import settled, writer_for
    from nlpmeta.sources.file import given_of_file

    given = given_of_file(source, wanted.text_column, wanted.form, faults=True)
    texts = GivenTexts(chunks(given), wanted.form, source)
    kept = kept_columns(texts, wanted.keep, as_table=True)
    columns = settled(columns, classifier, nested=out.suffix.lower() in (".jsonl", ".ndjson"))
    done, failed = 0, list[str]()
    with writer_for(out, classifier, columns, texts, kept, as_table=True, as_json=False) as write:
        for batch in texts.batches:
            rows = answered(classifier, batch, columns)
            write(rows)
            without = [each for each, _ in rows if not each.text]
            failed += [json_line({"line": each.line, "reason": each.fault or "an empty text"}) for each in without]
            done += len(rows)
    return Answered(done, failed)
