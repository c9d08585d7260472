"""``nlpmeta adapt``: from a handful of labelled examples to a classifier on disk, measured."""

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlpmeta.cli.console import out, out_table, printable
from nlpmeta.cli.process import (
    AsJson,
    DataFolder,
    Delimiter,
    DescriptionsFile,
    Device,
    EncoderName,
    Encoding,
    EngineName,
    LabelColumn,
    LabelSeparator,
    LangColumn,
    MaxLength,
    NoHeader,
    Quiet,
    TextColumn,
    check_device,
    loads_encoder,
)

if TYPE_CHECKING:
    from nlpmeta.auto.mismatch import TaskReport
    from nlpmeta.evaluation import AdaptReport
    from nlpmeta.evaluation.request import AdaptRequest, Place
    from nlpmeta.evaluation.several import SeveralReport
    from nlpmeta.evaluation.trial import Measured, Stopwatch, Trial
    from nlpmeta.metrics.scores import Interval, Proportion

EXAMPLES = """Examples:

  nlpmeta adapt --lang sw --shots 5

  nlpmeta adapt --data mine.csv --shots all --out my-model

  nlpmeta adapt --data train.jsonl --test-data test.jsonl --shots 10 --json

  nlpmeta adapt --data mine.csv --shots all --include-support --out my-model

  nlpmeta adapt --data mine.csv --shots all --suggest unlabelled.txt

  nlpmeta adapt --data mine.csv --shots 5 --descriptions labels.csv

  nlpmeta adapt --data mine.csv --shots 0 --out my-model

  nlpmeta adapt --data mine.csv --shots all --test-data test.csv --budget 2min

  nlpmeta adapt --data messages.csv --shots 10 --class-prior spam=0.1,ham=0.9

  nlpmeta adapt --data tagged.jsonl --shots 10

  nlpmeta adapt --data tagged.csv --label-separator ";" --shots all

  nlpmeta adapt --data long-texts.csv --max-length 512 --device cuda
"""


class RareChoice(str, Enum):
    """What becomes of classes with fewer examples than ``--shots``."""

    error = "error"
    drop = "drop"
    keep = "keep"


Language = Annotated[str | None, typer.Option(help="Language: sw, swa, sw-KE, swh_Latn or Swahili.")]
Shots = Annotated[str, typer.Option(help="Support examples per class, 'all', or 0 (class names alone).")]
Data = Annotated[str, typer.Option(help="Table (CSV, JSON, Parquet, xlsx, …), corpus name, or Hub id.")]
TestData = Annotated[str | None, typer.Option(help="Score on this file instead of the rest of --data.")]
Ways = Annotated[int | None, typer.Option(help="Number of classes, sampled with the seed; by default all.", min=2)]
Method = Annotated[str, typer.Option(help="Adaptation method; 'auto' selects and mixes heads on the support set.")]
InnerSteps = Annotated[
    int | None, typer.Option(help="Gradient steps on the support set (maml, anil, metasgd, reptile).", min=0)
]
Budget = Annotated[
    str, typer.Option(help="Time in which auto may fine-tune the encoder too, over all draws: 60s, 2min.")
]
ClassPrior = Annotated[
    str | None, typer.Option(help="How often classes will occur: spam=0.1,ham=0.9, or 'data': as often as in the data.")
]
Checkpoint = Annotated[str, typer.Option(help="Checkpoint to start from: default, none (frozen encoder), or a folder.")]
Seed = Annotated[int, typer.Option(help="Random seed: which examples are drawn.", min=0)]
Draws = Annotated[int, typer.Option(help="Support sets to draw and score.", min=1)]
Rare = Annotated[RareChoice, typer.Option(help="Classes with fewer than --shots examples.")]
Suggest = Annotated[Path | None, typer.Option(help="Pool of unlabelled texts; suggests the ten to label next.")]
Out = Annotated[Path | None, typer.Option(help="Folder for the model.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the folder of --out.")]
IncludeSupport = Annotated[
    bool, typer.Option("--include-support", help="Keep the examples in the model, for nlpmeta teach.")
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=EXAMPLES, short_help="Adapt to few examples, measure, and save the model.")(loads_encoder(adapt))


def adapt(
    *,
    lang: Language = None,
    shots: Shots = "5",
    data: Data = "starter",
    test_data: TestData = None,
    data_dir: DataFolder = None,
    ways: Ways = None,
    method: Method = "auto",
    inner_steps: InnerSteps = None,
    budget: Budget = "0",
    class_prior: ClassPrior = None,
    encoder: EncoderName = None,
    checkpoint: Checkpoint = "default",
    max_length: MaxLength = None,
    device: Device = "auto",
    engine: EngineName = "auto",
    seed: Seed = 0,
    draws: Draws = 5,
    rare: Rare = RareChoice.error,
    descriptions: DescriptionsFile = None,
    suggest: Suggest = None,
    out: Out = None,
    overwrite: Overwrite = False,
    include_support: IncludeSupport = False,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    label_separator: LabelSeparator = None,
    lang_column: LangColumn = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    no_header: NoHeader = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Adapt to a few labelled examples, measure over several draws, and save the model.

    The support set (--shots examples of each class) is drawn from the data and the rest is scored; this is repeated
    over --draws different support sets, or once where there is only one. The model of the first draw is saved.

    Where the label column holds lists, or --label-separator is given, texts may have none or several labels.
    """
    from nlpmeta.encoder.engines import check_engine
    from nlpmeta.evaluation.request import AdaptRequest
    from nlpmeta.settings import seconds_of
    from nlpmeta.sources.form import TableForm

    check_device(device)
    request = AdaptRequest(
        data=data, lang=lang, n_shot=_shots(shots), test_data=test_data, data_dir=data_dir, ways=ways, rare=rare.value,
        method=method, inner_steps=inner_steps, encoder=encoder, checkpoint=checkpoint, max_length=max_length,
        device=device, engine=check_engine(engine), seed=seed, n_draws=draws, suggest=suggest,
        text_column=text_column, label_column=label_column, lang_column=lang_column,
        form=TableForm(delimiter, encoding, header=not no_header, label_separator=label_separator),
        descriptions=descriptions, budget=seconds_of(budget, "--budget"), class_prior=class_prior,
    )  # fmt: skip
    _run(request, out, overwrite=overwrite, include_support=include_support, as_json=json, quiet=quiet)


def _run(
    request: "AdaptRequest", out: Path | None, *, overwrite: bool, include_support: bool, as_json: bool, quiet: bool
) -> None:
    """Do it, save the model and print the report; where it goes is settled before the work begins."""
    from nlpmeta.cli.console import say
    from nlpmeta.evaluation import adapt_and_measure
    from nlpmeta.evaluation.request import Material, choose_place, source_of

    notes = None if quiet else say
    if source_of(request, request.data).several:
        _run_several(request, out, overwrite=overwrite, include_support=include_support, as_json=as_json, quiet=quiet)
        return
    material = Material.of(request, say=notes)
    place = choose_place(out, name=request.name, task=request.facts(material.pool.digest()), overwrite=overwrite)
    found = adapt_and_measure(request, material=material, show_progress=not quiet, say=notes)
    _save(found, place, include_support=include_support, as_json=as_json)
    if not as_json:
        show(found.trial, place.folder, material.watch, found=found.task_report, label_next=found.label_next)


def _run_several(
    request: "AdaptRequest", out: Path | None, *, overwrite: bool, include_support: bool, as_json: bool, quiet: bool
) -> None:
    """The same for texts with several labels."""
    from nlpmeta.cli.console import say, show_several
    from nlpmeta.evaluation.request import choose_place
    from nlpmeta.evaluation.several import adapt_several, read_several

    data = read_several(request)
    place = choose_place(out, name=request.name, task=request.facts(data.digest), overwrite=overwrite)
    found = adapt_several(request, data=data, show_progress=not quiet, say=None if quiet else say)
    _save(found, place, include_support=include_support, as_json=as_json)
    if not as_json:
        show_several(found, place.folder)


def _save(found: "AdaptReport | SeveralReport", place: "Place", *, include_support: bool, as_json: bool) -> None:
    """Save the model with its report, and print the report if it is wanted as JSON."""
    from nlpmeta.cli.console import out_json

    report = found.json(place.folder)
    found.classifier.save_pretrained(
        place.folder, overwrite=place.replace, report=report, include_support=include_support
    )
    if as_json:
        out_json(report)


def _shots(asked: str) -> int | None:
    """The number of shots; ``None`` for all.

    Raises:
        NLPMetaError: if it is neither a whole number nor ``all``.
    """
    from nlpmeta.errors import NLPMetaError

    if asked == "all":
        return None
    if not asked.isascii() or not asked.isdigit():
        raise NLPMetaError(f"--shots takes a whole number from 0, or 'all'; got {asked!r}.")
    return int(asked)


def show(
    trial: "Trial",
    folder: Path,
    watch: "Stopwatch",
    *,
    found: "TaskReport | None" = None,
    label_next: Sequence[str] | None = None,
) -> None:
    """What was measured, with what the support set says of the task, and the texts to label next."""
    from nlpmeta.data.inputs import typed
    from nlpmeta.evaluation import notes_on_figures

    support = trial.task.support
    out(f"{support.n_way} classes, {len(support)} support texts, scored on {trial.task.scored_on}")
    if trial.cut is not None and trial.cut.n_cut:
        out(f"Note: {trial.cut.message('--max-length')}")
    if trial.method.scores:
        out_table(("", "accuracy, %", "macro-F1, %"), _rows(trial))
        out(_caption(trial))
        _show_confused(trial.method)
        if trial.frozen_is_better:
            out("Note: the frozen encoder did better here; such tasks were not in meta-training. Try --checkpoint none")
    for line in found.lines() if found is not None else ():
        out(printable(line))
    for line in notes_on_figures(trial, found):
        out(f"Note: {line}")
    if trial.task.left_out:
        rows = sum(trial.task.left_out.values())
        out(f"Left out: {rows} test rows of classes without support ({', '.join(sorted(trial.task.left_out)[:10])})")
    if label_next is not None:
        out("Label next, the most useful first:" if label_next else "Label next: no unlabelled texts are left")
        for text in label_next:
            out(f"  {printable(text)}")
    stages = ", ".join(f"{stage.replace('_', ' ')} {seconds:.1f} s" for stage, seconds in watch.seconds.items())
    out(f"Time: {stages}")
    whole = "of the names alone" if support.by_name else "of all examples"
    which = whole if support.by_name or trial.task.uses_all_examples else "of the first draw"
    out(f"Saved: {folder} (the model {which})")
    example = support.texts or trial.method.scores[0].episode.query.texts
    out(f"Next: nlpmeta predict {folder} {printable(typed(example[0]))}")


def _rows(trial: "Trial") -> list[tuple[str, str, str]]:
    name = trial.method.method + (f" ({', '.join(trial.chosen)})" if trial.chosen else "")
    runs = trial.scored.partition(",")[0]
    return [
        (f"{name}, {runs}", _percent(trial.method.accuracy), _percent(trial.method.macro_f1)),
        (
            "baseline: nearest name, frozen encoder" if trial.task.support.by_name else "baseline: logistic regression",
            _percent(trial.baseline.accuracy),
            _percent(trial.baseline.macro_f1),
        ),
        ("chance", f"{100 * trial.chance:.1f}", ""),
    ]


def _caption(trial: "Trial") -> str:
    """What was scored, and what the intervals are."""
    over = "Wilson's, over the texts" if trial.method.pooled else "over the draws"
    return f"Scored: {trial.scored}. 95 % intervals {over}."


def _show_confused(measured: "Measured") -> None:
    pairs = measured.confused()
    if pairs:
        listed = ", ".join(f"{true} → {guess} ({times})" for true, guess, times in pairs)
        out(printable(f"Most confused (true → predicted, texts): {listed}"))


def _percent(interval: "Interval | Proportion | None") -> str:
    return "" if interval is None else interval.percent()
