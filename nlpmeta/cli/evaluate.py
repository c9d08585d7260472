"""``nlpmeta evaluate``: methods and checkpoints under published protocols, on the same episodes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlpmeta.cli.process import (
    AsJson,
    DataFolder,
    Delimiter,
    DescriptionsFile,
    Device,
    EncoderName,
    Encoding,
    LabelColumn,
    LabelSeparator,
    LangColumn,
    MaxLength,
    NoHeader,
    Quiet,
    TextColumn,
    check_device,
    loads_encoder,
    whole_number,
    whole_numbers,
)

if TYPE_CHECKING:
    from nlpmeta.evaluation.protocols import Protocol, TaskSize, Ways
    from nlpmeta.evaluation.results import Row
    from nlpmeta.evaluation.runs import DataChoice
    from nlpmeta.learners.base import Learner

EXAMPLES = """Examples:

  nlpmeta evaluate auto@default,prototypical --data mine.csv --shots 0,1,5 --descriptions labels.csv

  nlpmeta evaluate logistic,auto@default --data long-texts.csv --max-length 512 --device cuda

  nlpmeta evaluate prototypical --protocol protaugment --data banking77

  nlpmeta evaluate mann,prototypical@mann --protocol stream --data injongo --lang sw

  nlpmeta evaluate logistic,auto@default --data injongo --lang sw,kin --out results.json

  nlpmeta evaluate logistic,auto@default --data tagged.csv --label-separator ";" --shots 5,10
"""

_SILENT = {"out", "plot", "json", "quiet", "device"}
"""Options that change no figure."""

Methods = Annotated[
    str,
    typer.Argument(metavar="METHODS", help="Methods, checkpoint folders, or METHOD@CHECKPOINT, comma-separated."),
]
Data = Annotated[str, typer.Option(help="Corpus name, table (CSV, JSON, Parquet, xlsx, …), or Hub id.")]
Lang = Annotated[str | None, typer.Option(help="Comma-separated languages, or 'all' for each in turn.")]
ProtocolName = Annotated[
    str | None, typer.Option(help="kshot-all, n-way, protaugment, mteb-8shot, clinc-oos or stream.")
]
Shots = Annotated[str | None, typer.Option(help="Support texts per class, comma-separated; 0: the names alone.")]
WaysOption = Annotated[str | None, typer.Option(help="Classes per episode: 'all', or a number.")]
Episodes = Annotated[int | None, typer.Option(help="Number of episodes (of each fold).", min=1)]
MaxQuery = Annotated[int | None, typer.Option(help="Maximum number of query texts.", min=1)]
Seed = Annotated[int | None, typer.Option(help="Random seed of the draws.", min=0)]
TestData = Annotated[str | None, typer.Option(help="Score on this data instead of the test split.")]
Split = Annotated[str, typer.Option(help="Split that support texts are drawn from.")]
Fold = Annotated[int | None, typer.Option(help="Only the test classes of this published fold.", min=0)]
NoPrefix = Annotated[bool, typer.Option("--no-prefix", help="No prompt prefix on texts ('query: ' for E5).")]
Compare = Annotated[str | None, typer.Option(help="Baseline of the differences, instead of the first method.")]
Out = Annotated[Path | None, typer.Option(help="Results file to append the rows to.")]
Plot = Annotated[Path | None, typer.Option(help="PNG of accuracy by presentation (protocol stream).")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=EXAMPLES, short_help="Measure methods under a published protocol.")(loads_encoder(evaluate))


def evaluate(
    context: typer.Context,
    what: Methods,
    *,
    data: Data = "starter",
    lang: Lang = None,
    protocol: ProtocolName = None,
    shots: Shots = None,
    ways: WaysOption = None,
    episodes: Episodes = None,
    max_query: MaxQuery = None,
    seed: Seed = None,
    test_data: TestData = None,
    split: Split = "train",
    fold: Fold = None,
    data_dir: DataFolder = None,
    encoder: EncoderName = None,
    max_length: MaxLength = None,
    device: Device = "auto",
    no_prefix: NoPrefix = False,
    compare: Compare = None,
    descriptions: DescriptionsFile = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    label_separator: LabelSeparator = None,
    lang_column: LangColumn = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    no_header: NoHeader = False,
    out: Out = None,
    plot: Plot = None,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure methods and checkpoints under a published protocol, with intervals.

    Several methods are scored on the same episodes, and their differences to the first one are shown. Embeddings are
    computed once per text and kept for the next run. docs/evaluation.md describes every protocol.

    Texts may have several labels (lists, or --label-separator): auto and logistic (one-vs-rest) are measured on those.
    """
    from nlpmeta.evaluation import shapes_of
    from nlpmeta.evaluation.runs import DataChoice
    from nlpmeta.learners.start import kinds_of
    from nlpmeta.sources.form import TableForm

    names, n_ways, n_shots = _names(what, compare), _ways(ways), _shots(shots)
    chosen = _protocol(protocol, n_ways)
    shapes = shapes_of(chosen, n_shots=n_shots, n_ways=n_ways, n_episodes=episodes, max_query=max_query, seed=seed)
    _check(names, chosen, device, out=out, plot=plot)
    choice = DataChoice(
        data=data, data_dir=data_dir, test_data=test_data, split=split, fold=fold, text_column=text_column,
        label_column=label_column, lang_column=lang_column, descriptions=descriptions,
        form=TableForm(delimiter, encoding, header=not no_header, label_separator=label_separator),
    )  # fmt: skip
    choice.check(chosen, shapes, kinds_of(names))
    langs = choice.languages(None if lang is None else lang.split(","))
    learners = _loaded(names, chosen, encoder, no_prefix=no_prefix, max_length=max_length, device=device)
    measured = _Measured(chosen, learners, choice, _command(context), out=out, plot=plot, json=json, quiet=quiet)
    measured.show(langs, shapes)


def _loaded(
    names: "Sequence[str]",
    protocol: "Protocol",
    encoder: str | None,
    *,
    no_prefix: bool,
    max_length: int | None,
    device: str,
) -> "dict[str, Learner]":
    from nlpmeta.encoder.weights import DEFAULT_ENCODER
    from nlpmeta.learners.start import learners_of

    encoder, prefix = encoder or DEFAULT_ENCODER, "" if no_prefix else None
    return learners_of(names, protocol.options, encoder=encoder, prefix=prefix, max_length=max_length, device=device)


@dataclass(frozen=True)
class _Measured:
    """What is measured, and where the rows go."""

    protocol: "Protocol"
    learners: "Mapping[str, Learner]"
    choice: "DataChoice"
    command: str
    out: Path | None
    plot: Path | None
    json: bool
    quiet: bool

    def show(self, langs: "Sequence[str | None]", shapes: "Sequence[TaskSize]") -> None:
        """Measure, keep the rows as soon as they are known, draw and print them."""
        from nlpmeta.bench.drawing import draw_streams
        from nlpmeta.cli.console import out_json

        _note(self.learners, self.choice.descriptions, quiet=self.quiet)
        rows: list[Row] = []
        for some in self._rows(langs, shapes):
            rows += some
        if self.plot is not None:
            draw_streams([row.json() for row in rows], self.plot)
        if self.json:
            out_json({"rows": [row.json() for row in rows]})
        else:
            _show(rows, self.protocol)

    def _rows(self, langs: "Sequence[str | None]", shapes: "Sequence[TaskSize]") -> "Iterator[list[Row]]":
        from nlpmeta.cli.console import say
        from nlpmeta.evaluation.results import add_rows
        from nlpmeta.evaluation.runs import ProtocolRun

        if not self.quiet:
            found = [learner.encoder.files for learner in self.learners.values()]
            say("\n".join(dict.fromkeys(files.description for files in found if files is not None)))
        run = ProtocolRun(
            protocol=self.protocol, methods=self.learners, choice=self.choice, command=self.command,
            show_progress=not self.quiet,
        )  # fmt: skip
        for some in run.rows(langs, shapes, note=None if self.quiet else say):
            if self.out is not None:
                add_rows(self.out, some)
            yield some


def _check(names: "Sequence[str]", protocol: "Protocol", device: str, *, out: Path | None, plot: Path | None) -> None:
    """Refuse, before the work, methods and devices that do not exist and files that cannot be written.

    Raises:
        NLPMetaError: if there are such.
    """
    from nlpmeta.bench.drawing import check_picture
    from nlpmeta.evaluation.results import read_rows
    from nlpmeta.learners.start import check_names

    check_device(device)
    check_names(names)
    if plot is not None:
        check_picture(plot, protocol)
    if out is not None:
        read_rows(out)


def _note(learners: "Mapping[str, Learner]", descriptions: Path | None, *, quiet: bool) -> None:
    """A model saved by ``nlpmeta adapt`` is not measured as it is, and not every method can use descriptions."""
    from nlpmeta.cli.console import say
    from nlpmeta.learners.abilities import without_names
    from nlpmeta.learners.start import is_adapted

    for name in filter(is_adapted, learners):
        say(f"Note: {name} is re-adapted to each support set; nlpmeta score {name} measures it as saved.")
    deaf = [] if descriptions is None else without_names(learners)
    if deaf and not quiet:
        say(f"Note: {', '.join(deaf)} cannot use --descriptions.")


def _names(what: str, compare: str | None) -> list[str]:
    """The names between commas, the one to compare with first, each once."""
    names = [name.strip() for name in ([compare] if compare else []) + what.split(",") if name.strip()]
    return list(dict.fromkeys(names))


def _protocol(asked: str | None, n_ways: "list[Ways] | None") -> "Protocol":
    """The protocol asked for; without one, all classes unless a number of them was requested."""
    from nlpmeta.evaluation.protocols import KSHOT_ALL, N_WAY, protocol

    return protocol(asked or (KSHOT_ALL.name if n_ways in (None, ["all"]) else N_WAY.name))


def _ways(asked: str | None) -> "list[Ways] | None":
    if asked is None:
        return None
    return ["all" if part.strip() == "all" else whole_number(part, "--ways") for part in asked.split(",")]


def _shots(asked: str | None) -> list[int] | None:
    return None if asked is None else whole_numbers(asked, "--shots", least=0)


def _command(context: typer.Context) -> str:
    """What was typed, without the options that change no figure."""
    import shlex

    words = ["nlpmeta", "evaluate"]
    for parameter in context.command.params:
        name, value = str(parameter.name), context.params.get(str(parameter.name))
        if name in _SILENT or not _typed(context, name):
            continue
        if parameter.param_type_name == "argument":
            words.append(str(value))
        else:
            words += [parameter.opts[0]] if value is True else [parameter.opts[0], str(value)]
    return shlex.join(words)


def _typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _show(rows: "Sequence[Row]", protocol: "Protocol") -> None:
    """The table, and what it is of."""
    from nlpmeta.cli.console import out, out_table
    from nlpmeta.evaluation.results import columns_of

    if protocol.presentations:
        rows = [row for row in rows if row.setting.presentation in protocol.presentations]
    first, columns = rows[0].setting, columns_of(rows, in_scope_accuracy=protocol.in_scope_accuracy)
    several_langs = len({row.setting.lang for row in rows}) > 1
    where = first.data if several_langs or first.lang is None else f"{first.data}, {first.lang}"
    what = "streams" if protocol.presentations else "episodes"
    out(f"{where}: {first.protocol}, {max(row.setting.episodes for row in rows)} {what}, seed {first.seed}")
    out_table(tuple(columns), [[cell(row) for cell in columns.values()] for row in rows])
    said = (
        "Exact match: all labels of a text are right" if rows[0].summary.several else "ECE: expected calibration error"
    )
    out(f"±, brackets: 95 % intervals over {what}. {said}.")
