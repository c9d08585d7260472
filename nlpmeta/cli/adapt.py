"""``nlpmeta adapt``: from a handful of labelled examples to a classifier on disk, measured."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlpmeta.cli.options import (
    Delimiter,
    Device,
    Encoding,
    LabelColumn,
    LangColumn,
    MaxLength,
    NoHeader,
    TextColumn,
    check_device,
)
from nlpmeta.cli.process import loads_encoder

if TYPE_CHECKING:
    from nlpmeta.adaptation.request import AdaptRequest

EXAMPLES = """Examples:

  nlpmeta adapt --lang sw --shots 5

  nlpmeta adapt --data mine.csv --shots all --out my-model

  nlpmeta adapt --data train.jsonl --test-data test.jsonl --shots 10 --json

  nlpmeta adapt --data mine.csv --shots all --include-support --out my-model

  nlpmeta adapt --data mine.csv --shots all --suggest unlabelled.txt

  nlpmeta adapt --data mine.csv --shots 5 --unlabelled corpus.txt

  nlpmeta adapt --data long-texts.csv --max-length 512 --device cuda
"""


class RareChoice(str, Enum):
    """What becomes of classes with fewer examples than ``--shots``."""

    error = "error"
    drop = "drop"
    keep = "keep"


Language = Annotated[str | None, typer.Option(help="Language: sw, swa, sw-KE, swh_Latn or Swahili.")]
Shots = Annotated[str, typer.Option(help="Examples of each class in the support set, or 'all'.")]
Data = Annotated[str, typer.Option(help="Table (CSV, JSON, Parquet, xlsx, …), corpus name, or Hub id.")]
TestData = Annotated[str | None, typer.Option(help="Score on this file, not the rest of --data.")]
DataFolder = Annotated[Path | None, typer.Option(help="Folder with local copies of public data sets.")]
Ways = Annotated[int | None, typer.Option(help="Only this many classes, drawn with the seed.", min=2)]
Method = Annotated[str, typer.Option(help="How to adapt; 'auto' compares heads on the support set.")]
InnerSteps = Annotated[
    int | None, typer.Option(help="Gradient steps on the support set (maml, anil, metasgd, reptile).", min=0)
]
Encoder = Annotated[str | None, typer.Option(help="Folder or Hub id of an encoder.")]
Checkpoint = Annotated[str, typer.Option(help="Start from: default, none (frozen encoder), or a folder.")]
Seed = Annotated[int, typer.Option(help="Decides which examples are drawn.", min=0)]
Draws = Annotated[int, typer.Option(help="Support sets to draw and score.", min=1)]
Rare = Annotated[RareChoice, typer.Option(help="Classes with fewer than --shots examples.")]
Suggest = Annotated[Path | None, typer.Option(help="Unlabelled texts; name the ten to label next.")]
Unlabelled = Annotated[
    Path | None, typer.Option(help="Texts to learn the language from first; kept only if the support gains.")
]
UnlabelledSteps = Annotated[int, typer.Option(help="Training steps on the texts of --unlabelled.", min=1)]
Out = Annotated[Path | None, typer.Option(help="Folder for the model.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the folder of --out.")]
IncludeSupport = Annotated[
    bool, typer.Option("--include-support", help="Keep the examples in the model, for nlpmeta teach.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=EXAMPLES)(loads_encoder(adapt))


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
    encoder: Encoder = None,
    checkpoint: Checkpoint = "default",
    max_length: MaxLength = None,
    device: Device = "auto",
    seed: Seed = 0,
    draws: Draws = 5,
    rare: Rare = RareChoice.error,
    suggest: Suggest = None,
    unlabelled: Unlabelled = None,
    unlabelled_steps: UnlabelledSteps = 60,
    out: Out = None,
    overwrite: Overwrite = False,
    include_support: IncludeSupport = False,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
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
    """
    from nlpmeta.adaptation.request import AdaptRequest
    from nlpmeta.sources.form import TableForm

    check_device(device)
    request = AdaptRequest(
        data=data, lang=lang, n_shot=_shots(shots), test_data=test_data, data_dir=data_dir, ways=ways, rare=rare.value,
        method=method, inner_steps=inner_steps, encoder=encoder, checkpoint=checkpoint, max_length=max_length,
        device=device, seed=seed, n_draws=draws, suggest=suggest, unlabelled=unlabelled,
        unlabelled_steps=unlabelled_steps, text_column=text_column, label_column=label_column, lang_column=lang_column,
        form=TableForm(delimiter=delimiter, encoding=encoding, header=not no_header),
    )  # fmt: skip
    _run(request, out, overwrite=overwrite, include_support=include_support, as_json=json, quiet=quiet)


def _run(
    request: "AdaptRequest", out: Path | None, *, overwrite: bool, include_support: bool, as_json: bool, quiet: bool
) -> None:
    """Do it, save the model and print the report; where it goes is settled before the work begins."""
    from nlpmeta.adaptation.adapt_report import adapt_and_measure
    from nlpmeta.adaptation.place import choose_place
    from nlpmeta.adaptation.request import Material
    from nlpmeta.cli.adapt_output import show
    from nlpmeta.cli.console import out_json, say

    told = None if quiet else say
    material = Material.of(request, say=told)
    place = choose_place(out, name=request.name, task=request.facts(material.pool.digest()), overwrite=overwrite)
    found = adapt_and_measure(request, material=material, show_progress=not quiet, say=told)
    report = found.json(place.folder)
    found.classifier.save_pretrained(
        place.folder, overwrite=place.replace, report=report, include_support=include_support
    )
    if as_json:
        out_json(report)
    else:
        show(
            found.trial,
            place.folder,
            material.watch,
            found=found.task_report,
            label_next=found.label_next,
            learned=found.learned,
        )


def _shots(asked: str) -> int | None:
    """The number of shots; ``None`` for all.

    Raises:
        NLPMetaError: if it is neither a positive whole number nor ``all``.
    """
    from nlpmeta.errors import NLPMetaError

    if asked == "all":
        return None
    if not asked.isascii() or not asked.isdigit() or int(asked) < 1:
        raise NLPMetaError(f"--shots takes a whole number from 1, or 'all'; got {asked!r}.")
    return int(asked)
