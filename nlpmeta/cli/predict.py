"""``nlpmeta predict``: labels for texts from the command line, a file, or standard input."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from nlpmeta.classifier import FewShotClassifier

Lines: TypeAlias = "Callable[[FewShotClassifier, Sequence[str], bool], Iterator[str]]"
CHUNK = 4096  # texts in memory at a time from a file; long enough to sort by length well
EXAMPLES = """Examples:

  nlpmeta predict my-model "niamshe saa kumi na moja"

  nlpmeta predict my-model --file texts.txt --out labels.tsv

  cat texts.txt | nlpmeta predict my-model --json

  nlpmeta predict my-model --abstain 0.9 "niamshe saa kumi na moja"
"""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=EXAMPLES)(predict)


def predict(
    model: Annotated[str, typer.Argument(help="Folder of an adapted model, or user/name on the Hub.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; without them --file or standard input.")] = None,
    *,
    file: Annotated[Path | None, typer.Option(help="A text a line, or a CSV/TSV/JSONL/Parquet table.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the predictions here, all or nothing.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --out.")] = False,
    text_column: Annotated[str | None, typer.Option(help="Column of the texts in a table.")] = None,
    abstain: Annotated[
        float | None, typer.Option(help="Name all labels that hold the true one this often (0.9), or say unsure.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the Hub.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress.")] = False,
) -> None:
    """Print label, probability and text of each text, tab-separated, as soon as they are known.

    With --abstain a text gets one label where the model is sure, several (a | b) where it is not, or "unsure".
    """
    from nlpmeta.cli.predict_input import interactive
    from nlpmeta.errors import NLPMetaError
    from nlpmeta.sources.texts import lines_of, texts_of_file

    if texts and file:
        raise NLPMetaError("Give texts or --file, not both.")
    if out is not None and out.exists() and not overwrite:
        raise NLPMetaError(f"{out} exists and was kept as it is. Pass --overwrite to replace it.")
    if texts:
        source, chunk = iter(texts), CHUNK
    elif file is not None:
        source, chunk = texts_of_file(file, text_column), CHUNK
    else:
        source, chunk = lines_of(sys.stdin.buffer, "standard input"), 1 if interactive(sys.stdin) else CHUNK
    from nlpmeta.classifier import FewShotClassifier

    classifier = FewShotClassifier.from_pretrained(model, revision=revision)
    lines = _labels if abstain is None else partial(_label_sets, coverage=abstain)
    with _destination(out) as stream:
        done = _predict(classifier, source, stream, lines, chunk=chunk, as_json=json, quiet=quiet)
    if out is not None and not quiet:
        from nlpmeta.cli.console import say

        say(f"{done} predictions in {out}")


def _predict(
    classifier: "FewShotClassifier",
    texts: Iterator[str],
    stream: IO[str],
    lines: "Lines",
    *,
    chunk: int,
    as_json: bool,
    quiet: bool,
) -> int:
    """Write a line a text, a chunk at a time, and return how many."""
    from itertools import islice

    from nlpmeta.progress import track

    done = 0
    with track("Predicting", None, show=not quiet) as advance:
        while batch := list(islice(texts, chunk)):
            for line in lines(classifier, batch, as_json):
                stream.write(line)
            stream.flush()
            advance(len(batch))
            done += len(batch)
    return done


def _labels(classifier: "FewShotClassifier", batch: Sequence[str], as_json: bool) -> Iterator[str]:
    from nlpmeta.cli.predict_input import format_line

    probabilities = classifier.predict_proba(batch)
    for text, row, label in zip(batch, probabilities, probabilities.argmax(1), strict=True):
        yield format_line(text, classifier.classes_[label], float(row[label]), as_json=as_json)


def _label_sets(
    classifier: "FewShotClassifier", batch: Sequence[str], as_json: bool, *, coverage: float
) -> Iterator[str]:
    from nlpmeta.cli.predict_input import format_set

    for text, found in zip(batch, classifier.predict(batch, abstain=coverage), strict=True):
        yield format_set(text, found, as_json=as_json)


@contextmanager
def _destination(out: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a file that appears only when everything is written."""
    from nlpmeta.files import new_file

    if out is None:
        yield sys.stdout
    else:
        with new_file(out) as stream:
            yield stream
