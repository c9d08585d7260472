"""``nlpmeta bench``: our methods and other packages on the same supports and queries."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlpmeta.cli.process import (
    AsJson,
    DataFolder,
    Delimiter,
    Device,
    Encoding,
    LabelColumn,
    LabelSeparator,
    LangColumn,
    MaxLength,
    NoHeader,
    TextColumn,
    check_device,
    loads_encoder,
    whole_numbers,
)

if TYPE_CHECKING:
    from nlpmeta.bench import Bench
    from nlpmeta.bench.plan import BenchTask
    from nlpmeta.bench.store import Store

EXAMPLES = """Examples:

  nlpmeta bench --data starter --lang sw --shots 1,5 --out bench

  nlpmeta bench --data injongo:swa,banking77 --peers setfit --max-steps 25 --out bench

  nlpmeta bench --data long-texts.csv --max-length 512 --device cuda --out bench-512

  nlpmeta bench --data tagged.jsonl --methods auto@default,logistic --shots 5 --out bench-tagged

  nlpmeta bench --scaling --data clinc150 --peers setfit --max-steps 2 --out scaling
"""

Data = Annotated[str, typer.Option(help="Comma-separated data sets, each NAME or NAME:LANG.")]
Lang = Annotated[str | None, typer.Option(help="Languages of data sets given without one, comma-separated.")]
Shots = Annotated[str, typer.Option(help="Support texts per class, comma-separated; 0: the names alone.")]
Methods = Annotated[str, typer.Option(help="Our methods, METHOD (frozen encoder) or METHOD@CHECKPOINT; or 'none'.")]
Peers = Annotated[
    str | None, typer.Option(help="setfit, adaptive-classifier, lora, fine-tuning, or 'none'; installed packages.")
]
Draws = Annotated[int, typer.Option(help="Support sets drawn for each size.", min=1)]
MaxQuery = Annotated[int, typer.Option(help="Maximum number of query texts.", min=1)]
MaxSteps = Annotated[int, typer.Option(help="Maximum training steps of a peer; 0 for its own default.", min=0)]
Limit = Annotated[float, typer.Option(help="Time limit of a cell in seconds; 0 for none.", min=0)]
Scaling = Annotated[
    bool, typer.Option("--scaling", help="Measure time and memory over ways and shots instead of accuracy.")
]
Seed = Annotated[int, typer.Option(help="Random seed of the draws.", min=0)]
SharedEncoder = Annotated[str | None, typer.Option(help="Folder or Hub id of the encoder that all methods share.")]
Results = Annotated[Path, typer.Option(help="Results folder; cells that it already holds are skipped.")]
QuietProgress = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def register(app: typer.Typer) -> None:
    """Add the command and the one that shows its results to the application."""
    app.command(epilog=EXAMPLES, short_help="Compare methods and other packages on the same support sets.")(
        loads_encoder(bench)
    )
    app.command(epilog=REPORT_EXAMPLES, short_help="Make an HTML page and figures of benchmark results.")(report)


def bench(
    *,
    data: Data = "starter",
    lang: Lang = None,
    shots: Shots = "1,5,10",
    methods: Methods = "auto@default,logistic",
    peers: Peers = None,
    draws: Draws = 3,
    max_query: MaxQuery = 500,
    max_steps: MaxSteps = 50,
    limit: Limit = 0,
    scaling: Scaling = False,
    seed: Seed = 0,
    data_dir: DataFolder = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    label_separator: LabelSeparator = None,
    lang_column: LangColumn = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    no_header: NoHeader = False,
    encoder: SharedEncoder = None,
    max_length: MaxLength = None,
    device: Device = "auto",
    out: Results = Path("bench"),
    json: AsJson = False,
    quiet: QuietProgress = False,
) -> None:
    """Compare methods and other packages on the same support sets, queries and encoder weights.

    Each method runs in its own process. Accuracy, macro-F1, calibration error, seconds, memory and model size are
    written to --out as they are measured, so an interrupted run resumes when it is started again. 'nlpmeta report'
    makes figures and tables of the folder. The column, delimiter, encoding and header options apply to every data set
    in --data that is not a named corpus. Texts may have several labels (lists, or --label-separator): auto, logistic
    and setfit are compared on those.
    """
    from nlpmeta.bench import Bench, scaling_benches
    from nlpmeta.bench.plan import BenchTask, entries_of, takers_of
    from nlpmeta.bench.store import Store
    from nlpmeta.encoder.weights import DEFAULT_ENCODER
    from nlpmeta.sources.form import TableForm

    check_device(device)
    chosen, wanted = encoder or DEFAULT_ENCODER, tuple(whole_numbers(shots, "--shots", least=0))
    form = TableForm(delimiter, encoding, header=not no_header, label_separator=label_separator)
    task = BenchTask(
        data=data, data_dir=None if data_dir is None else str(data_dir), max_query=max_query, seed=seed,
        text_column=text_column, label_column=label_column, lang_column=lang_column, delimiter=form.delimiter,
        encoding=form.encoding, header=form.header, label_separator=form.label_separator,
    )  # fmt: skip
    asked = entries_of(_names(methods), _peers(peers), encoder=chosen, max_steps=max_steps or None, least=min(wanted))
    tasks = _tasks(data, lang, task)
    store = Store(out)
    whole = Bench(
        tasks=tasks, entries=takers_of(tasks, asked, named=peers is not None), n_shots=wanted, n_draws=draws,
        encoder=chosen, max_length=max_length, device=device, limit=limit or None,
    )  # fmt: skip
    failed = _run(scaling_benches(whole) if scaling else [whole], store, quiet=quiet)
    (_show_json if json else _show)(store)
    _check_failed(failed, out)


def _run(benches: "Sequence[Bench]", store: "Store", *, quiet: bool) -> int:
    """Run them all; how many cells failed. What the data cannot give is said before the work."""
    from nlpmeta.cli.console import say

    store.lines()  # a folder that is none of ours is said before the work
    for each in benches:
        for task in each.tasks:
            task.tasks(max(each.n_shots), 1)
    return sum(each.run(store, say=(lambda _: None) if quiet else say) for each in benches)


def _check_failed(failed: int, out: Path) -> None:
    """After the results have been shown, because those that there are count.

    Raises:
        WorkFailedError: if a cell failed.
    """
    from nlpmeta.errors import WorkFailedError

    if failed:
        raise WorkFailedError(f"{failed} cells failed; their errors are in {out}. Run the same command to try again.")


def _names(asked: str) -> list[str]:
    return [] if asked.strip() == "none" else [name.strip() for name in asked.split(",") if name.strip()]


def _peers(asked: str | None) -> list[str]:
    from nlpmeta.bench.contender import installed_peers

    return installed_peers() if asked is None else _names(asked)


def _tasks(data: str, lang: str | None, like: "BenchTask") -> "tuple[BenchTask, ...]":
    """A task as ``like`` for each data set and language; how tables are read is no matter of a corpus beside them.

    Raises:
        NLPMetaError: if a data set or a language is not there.
    """
    from dataclasses import replace

    from nlpmeta.bench.plan import BenchTask
    from nlpmeta.sources.catalogue import known_as
    from nlpmeta.sources.loading import known_names

    langs = [None] if lang is None else [each.strip() for each in lang.split(",")]
    pairs: list[tuple[str, str | None]] = []
    for part in _names(data):
        name, colon, own = part.partition(":")
        pairs += [(name, own)] if colon and not Path(part).exists() else [(part, each) for each in langs]
    named = {name for name, _ in pairs if known_as(name) in known_names()}
    plain = BenchTask(data=data, data_dir=like.data_dir, max_query=like.max_query, seed=like.seed)
    only_corpora = len(named) == len({name for name, _ in pairs})
    found = [replace(plain if name in named and not only_corpora else like, data=name, lang=own) for name, own in pairs]
    return tuple(dict.fromkeys(task.spelled() for task in found))


def _show(store: "Store") -> None:
    """Tables for a person."""
    from nlpmeta.bench import series_of
    from nlpmeta.bench.summary import SEVERAL, groups_of
    from nlpmeta.cli.console import out, out_table

    lines = store.lines()
    groups = groups_of(lines)
    if groups:
        headers = ("task", "shots", "method", "draws", "accuracy, %", "macro-F1, %", "ECE, %", "adapt, s")
        out_table((*headers, "texts/s", "peak MB", "to keep, MB"), [group.cells() for group in groups])
    if any(group.several for group in groups):
        out(SEVERAL)
    if series := series_of(lines):
        out_table(
            ("method", "over", "sizes", "adapt, s", "exponent"),
            [
                (
                    each.method.title,
                    each.over,
                    " ".join(map(str, each.sizes)),
                    " ".join(f"{value:.2f}" for value in each.seconds),
                    "" if each.growth is None else f"{each.growth.exponent:.2f}",
                )
                for each in series
            ],
        )
    out(f"Results: {store.folder}. Pictures and tables: nlpmeta report {store.folder}")


def _show_json(store: "Store") -> None:
    """One JSON object."""
    from nlpmeta.bench import series_of
    from nlpmeta.bench.summary import groups_of
    from nlpmeta.cli.console import out_json

    lines = store.lines()
    rows = [
        {
            "data": group.task.data,
            "lang": group.task.lang,
            "n_shot": group.task.n_shot,
            "method": group.method.name,
            "max_steps": group.method.max_steps,
            "draws": len(group.lines),
            "accuracy": group.accuracy.json(),
            "macro_f1": group.macro_f1.json(),
            **group.more(),
            "calibration_error": group.calibration_error,
            "adapt_seconds": group.mean("adapt_seconds"),
            "predictions_per_second": group.mean("predictions_per_second"),
            "peak_bytes": group.mean("peak_bytes"),
            "artefact_bytes": group.mean("artefact_bytes"),
        }
        for group in groups_of(lines)
    ]
    scaling = [
        {
            "method": each.method.name,
            "over": each.over,
            "sizes": list(each.sizes),
            "adapt_seconds": list(each.seconds),
            "peak_bytes": list(each.peaks),
            "exponent": None if each.growth is None else each.growth.exponent,
        }
        for each in series_of(lines)
    ]
    out_json({"rows": rows, "scaling": scaling})


REPORT_EXAMPLES = """Examples:

  nlpmeta report bench

  nlpmeta report results/bench --into docs/results.md
"""


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that 'nlpmeta bench' wrote.")],
    *,
    into: Annotated[Path | None, typer.Option(help="Markdown file whose benchmark table is replaced.")] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Benchmark",
    json: AsJson = False,
) -> None:
    """Make an HTML page of the results in DIR, and figures as files.

    The page, DIR/report.html, is self-contained and loads nothing from the network. The figures are in DIR/pictures.
    With --into, the results table is written between the two markers of a Markdown file.
    """
    from nlpmeta.bench.report import PICTURES_FOLDER, make_report
    from nlpmeta.bench.store import Store
    from nlpmeta.bench.summary import check_marks, groups_of, markdown, put_into
    from nlpmeta.cli.console import out, out_json

    table = None
    if into is not None:
        check_marks(into)
        table = markdown(groups_of(Store(folder).lines()))
    page = make_report(folder, title=title)
    pictures = sorted(str(path) for path in (folder / PICTURES_FOLDER).glob("*.png"))
    if into is not None and table is not None:
        put_into(into, table)
    if json:
        out_json({"page": str(page), "pictures": pictures, "table": None if into is None else str(into)})
        return
    out(f"Page: {page}")
    out(f"Pictures: {len(pictures)} in {folder / PICTURES_FOLDER}")
    if into is not None:
        out(f"Table: {into}")
