"""``nlpmeta score``: saved models on labelled data, each as it is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlpmeta.cli.options import Delimiter, Device, Encoding, LabelColumn, LangColumn, NoHeader, TextColumn
from nlpmeta.cli.status import loads_encoder

if TYPE_CHECKING:
    from nlpmeta.data import LabeledTexts
    from nlpmeta.evaluation import Answers

EXAMPLES = """Examples:

  nlpmeta score my-model --data labelled.csv

  nlpmeta score old-model new-model --data labelled.csv --show 10

  nlpmeta score my-model --data labelled.jsonl --out answers.csv --json
"""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=EXAMPLES)(loads_encoder(score))


def score(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Folders of adapted models, or user/name.")],
    *,
    data: Annotated[str, typer.Option(help="Labelled table (CSV, JSON, Parquet, xlsx, …), corpus name, or Hub id.")],
    lang: Annotated[str | None, typer.Option(help="Language: sw, swa, sw-KE, swh_Latn or Swahili.")] = None,
    split: Annotated[str, typer.Option(help="The split of a data set that has several.")] = "train",
    data_dir: Annotated[Path | None, typer.Option(help="Folder with local copies of public data sets.")] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    lang_column: LangColumn = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    no_header: NoHeader = False,
    device: Device = "auto",
    show: Annotated[int, typer.Option(help="Texts to print that models differ on.", min=0)] = 5,
    out: Annotated[Path | None, typer.Option(help="CSV file for a row a text: label, and what each said.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress.")] = False,
) -> None:
    """Score saved models on labelled data as they are: nothing is adapted.

    Several models are scored on the same texts and compared with the first one, pair by pair. Texts whose label a
    model does not know are counted and left out of its figures.
    """
    from nlpmeta.cli import score_output
    from nlpmeta.cli.console import out_json, say
    from nlpmeta.errors import NLPMetaError
    from nlpmeta.evaluation import compare
    from nlpmeta.sources.form import TableForm
    from nlpmeta.sources.loading import load_source

    if len(set(models)) < len(models):
        raise NLPMetaError("A model is named twice. Name each once.")
    if out is not None and out.exists() and not overwrite:
        raise NLPMetaError(f"{out} exists and was kept as it is. Pass --overwrite to replace it.")
    source = load_source(
        data,
        data_dir=data_dir,
        text_column=text_column,
        label_column=label_column,
        lang_column=lang_column,
        form=TableForm(delimiter=delimiter, encoding=encoding, header=not no_header),
    )
    texts = source.load(lang, split)
    for name in models if not quiet else ():
        if _was_adapted_from(name, texts):
            say(f"Note: {name} was adapted from examples of this very data, so its figures here are too good.")
    answers = [_answers(name, texts, device=device, quiet=quiet) for name in models]
    pairs = [compare(answers[0], other) for other in answers[1:]]
    if out is not None:
        score_output.write_rows(out, texts, answers)
    if json:
        out_json(score_output.report(texts, answers, pairs, data=data, show=show))
    else:
        score_output.show(texts, answers, pairs, data=data, most=show)


def _was_adapted_from(name: str, texts: "LabeledTexts") -> bool:
    """Whether the report in a model's folder names the same data."""
    from nlpmeta.manifest import optional_json

    report = optional_json(Path(name) / "report.json") if Path(name).is_dir() else {}
    task = report.get("task")
    return isinstance(task, dict) and task.get("digest") == texts.digest()


def _answers(name: str, texts: "LabeledTexts", *, device: str, quiet: bool) -> "Answers":
    """What a saved model says of all texts."""
    import numpy as np

    from nlpmeta.classifier import FewShotClassifier
    from nlpmeta.evaluation import Answers, match_labels
    from nlpmeta.progress import track

    classifier = FewShotClassifier.from_pretrained(name, device=device)
    if not match_labels(texts.label_names, classifier.classes_):  # before the work
        Answers.of(name, classifier.classes_, texts, np.zeros((len(texts), len(classifier.classes_))))
    chunk, parts = 4096, []
    with track(f"Scoring {Path(name).name}", len(texts), show=not quiet) as advance:
        for start in range(0, len(texts), chunk):
            parts.append(classifier.predict_proba(list(texts.texts[start : start + chunk])))
            advance(len(parts[-1]))
    return Answers.of(name, classifier.classes_, texts, np.concatenate(parts))
