"""``nlpmeta score``: saved models on labelled data, each as it is."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlpmeta.cli.process import (
    AsJson,
    DataFolder,
    Delimiter,
    Device,
    Encoding,
    EngineName,
    LabelColumn,
    LabelSeparator,
    LangColumn,
    NoHeader,
    Quiet,
    TextColumn,
    loads_encoder,
)

if TYPE_CHECKING:
    from nlpmeta.data import LabeledTexts
    from nlpmeta.encoder.engines import Engine
    from nlpmeta.evaluation.saved import Answers, Pair
    from nlpmeta.storage.files import Json

EXAMPLES = """Examples:

  nlpmeta score my-model --data labelled.csv

  nlpmeta score old-model new-model --data labelled.csv --show 10

  nlpmeta score my-model --data labelled.jsonl --out answers.csv --json
"""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=EXAMPLES, short_help="Score saved models on labelled data.")(loads_encoder(score))


def score(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Folders of adapted models, or user/name.")],
    *,
    data: Annotated[str, typer.Option(help="Labelled table (CSV, JSON, Parquet, xlsx, …), corpus name, or Hub id.")],
    lang: Annotated[str | None, typer.Option(help="Language: sw, swa, sw-KE, swh_Latn or Swahili.")] = None,
    split: Annotated[str, typer.Option(help="The split of a data set that has several.")] = "train",
    data_dir: DataFolder = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    label_separator: LabelSeparator = None,
    lang_column: LangColumn = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    no_header: NoHeader = False,
    device: Device = "auto",
    engine: EngineName = "auto",
    show: Annotated[int, typer.Option(help="Number of texts to print on which models disagree.", min=0)] = 5,
    out: Annotated[Path | None, typer.Option(help="CSV file, a row per text: its label, each model's label.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --out.")] = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score saved models on labelled data as they are: nothing is adapted.

    Texts may have several labels (lists, or --label-separator); F1, average precision and exact matches are printed.

    Several models are scored on the same texts and compared with the first one, pair by pair. Texts whose label a
    model does not know are counted and left out of its figures.
    """
    from nlpmeta.cli.console import out_json, say
    from nlpmeta.encoder.engines import check_engine
    from nlpmeta.errors import NLPMetaError
    from nlpmeta.evaluation.saved import compare
    from nlpmeta.sources.form import TableForm
    from nlpmeta.sources.loading import load_source

    if len(set(models)) < len(models):
        raise NLPMetaError("A model is named twice. Name each once.")
    if out is not None and out.exists() and not overwrite:
        raise NLPMetaError(f"{out} already exists and was kept. Pass --overwrite to replace it.")
    form = TableForm(delimiter, encoding, header=not no_header, label_separator=label_separator)
    source = load_source(
        data, data_dir=data_dir, text_column=text_column, label_column=label_column, lang_column=lang_column, form=form
    )
    texts = source.load(lang, split, several=True) if source.several else source.load(lang, split)
    for name in models if not quiet else ():
        if _was_adapted_from(name, texts):
            say(f"Note: {name} was adapted from examples of this very data, so its figures here are too optimistic.")
    if source.several:
        return _score_several(models, texts, data, device, check_engine(engine), as_json=json, out=out)
    answers = [_answers(name, texts, device=device, engine=engine, quiet=quiet) for name in models]
    pairs = [compare(answers[0], other) for other in answers[1:]]
    if out is not None:
        _write_rows(out, texts, answers)
    if json:
        out_json(_report(texts, answers, pairs, data=data, show=show))
    else:
        _show(texts, answers, pairs, data=data, most=show)


def _score_several(
    models: Sequence[str],
    texts: "LabeledTexts",
    data: str,
    device: str,
    engine: "Engine",
    *,
    as_json: bool,
    out: Path | None,
) -> None:
    """The same for texts with several labels: each model by itself."""
    from nlpmeta.classifier.classifier import FewShotClassifier
    from nlpmeta.cli.console import out as print_line
    from nlpmeta.cli.console import out_json, out_table, percent, printable
    from nlpmeta.errors import NLPMetaError
    from nlpmeta.evaluation.results import FIGURES
    from nlpmeta.evaluation.saved import score_several

    if out is not None:
        raise NLPMetaError("--out requires one label per text; for several: nlpmeta predict --file DATA --out FILE")
    load = partial(FewShotClassifier.from_pretrained, device=device, engine=engine)
    found = {name: score_several(load(name), texts) for name in models}
    if as_json:
        each = [{"model": name, **figures, "unseen_labels": unseen} for name, (figures, unseen) in found.items()]
        out_json({"data": data, "n_texts": len(texts), "several": True, "models": each})
        return
    many = "1 model" if len(models) == 1 else f"{len(models)} models"
    print_line(printable(f"{many} on {len(texts)} texts of {data}, {'' if len(models) == 1 else 'each '}as saved"))
    rows = [(name, *(percent(figures[metric]) for metric in FIGURES)) for name, (figures, _) in found.items()]
    out_table(("model", *(f"{title}, %" for title in FIGURES.values())), rows)
    for name, (_, unseen) in found.items():
        if unseen:
            print_line(printable(f"{name} does not know these labels, which are not scored: {', '.join(unseen)}"))


def _was_adapted_from(name: str, texts: "LabeledTexts") -> bool:
    """Whether the report in a model's folder names the same data."""
    from nlpmeta.storage.manifest import BEFORE_TEACHING, optional_json

    report = optional_json(Path(name) / "report.json") if Path(name).is_dir() else {}
    made = report.get(BEFORE_TEACHING, report)
    task = made.get("task") if isinstance(made, dict) else None
    return isinstance(task, dict) and task.get("digest") == texts.digest()


def _answers(name: str, texts: "LabeledTexts", *, device: str, engine: str, quiet: bool) -> "Answers":
    """What a saved model says of all texts."""
    import numpy as np

    from nlpmeta.cli.answering import load_model
    from nlpmeta.evaluation.saved import Answers, match_labels
    from nlpmeta.progress import track

    classifier = load_model(name, None, device=device, engine=engine, probabilities_alone=True, quiet=True)
    if not match_labels(texts.label_names, classifier.classes_):  # before the work
        Answers.of(name, classifier.classes_, texts, np.zeros((len(texts), len(classifier.classes_))))
    chunk, parts = 4096, []
    with track(f"Scoring {Path(name).name}", len(texts), show=not quiet) as advance:
        for start in range(0, len(texts), chunk):
            parts.append(classifier.predict_proba(list(texts.texts[start : start + chunk])))
            advance(len(parts[-1]))
    return Answers.of(name, classifier.classes_, texts, np.concatenate(parts))


def _report(
    texts: "LabeledTexts", answers: "Sequence[Answers]", pairs: "Sequence[Pair]", *, data: str, show: int
) -> "dict[str, Json]":
    """The JSON object of ``score --json``; shares are fractions of 1."""
    models, compared = [_model(each) for each in answers], [_pair(texts, pair, answers, show) for pair in pairs]
    return {"data": data, "n_texts": len(texts), "models": models, "pairs": compared}


def _show(
    texts: "LabeledTexts", answers: "Sequence[Answers]", pairs: "Sequence[Pair]", *, data: str, most: int
) -> None:
    """The same for a person."""
    from nlpmeta.cli.console import out, out_table, percent, printable
    from nlpmeta.metrics.scores import says_little

    models = "1 model" if len(answers) == 1 else f"{len(answers)} models"
    out(printable(f"{models} on {len(texts)} texts of {data}, each as it was saved"))
    headers = ("model", "scored texts", "accuracy, %", "macro-F1, %", "ECE, %")
    rows = [
        (
            each.name,
            str(each.accuracy.n),
            each.accuracy.percent(),
            *map(percent, (each.macro_f1, each.calibration_error)),
        )
        for each in answers
    ]
    out_table(headers, rows)
    out("Brackets: Wilson's 95 % intervals over the scored texts. ECE: expected calibration error.")
    for each in answers:
        if each.unseen:
            out(printable(_unseen(each)))
        if each.confused():
            listed = ", ".join(f"{true} → {guess} ({n})" for true, guess, n in each.confused())
            out(printable(f"Most confused by {each.name} (true → predicted, texts): {listed}"))
    few = says_little(min(each.accuracy.n for each in answers))
    if few is not None:
        out(f"Note: {few}.")
    for pair in pairs:
        _show_pair(texts, pair, answers, most)


def _write_rows(path: Path, texts: "LabeledTexts", answers: "Sequence[Answers]") -> None:
    """A row a text: its label, and of each model the label and its probability."""
    import csv

    from nlpmeta.storage.files import new_file

    with new_file(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        columns = [f"{each.name}{part}" for each in answers for part in (":label", ":probability")]
        writer.writerow(["text", "label", *columns])
        for row, (text, label) in enumerate(zip(texts.texts, texts.names(), strict=True)):
            said = [each.said_of(row) for each in answers]
            writer.writerow([text, label, *(cell for guess, p in said for cell in (guess, f"{p:.6f}"))])


def _unseen(each: "Answers") -> str:
    n_texts = sum(each.unseen.values())
    labels = ", ".join(f"{name} ({n})" for name, n in list(each.unseen.items())[:10])
    more = f" and {len(each.unseen) - 10} more" if len(each.unseen) > 10 else ""
    return (
        f"{each.name} does not know {len(each.unseen)} of the labels: {labels}{more}. Their {n_texts} texts are not in "
        f"its figures; counted as wrong, its accuracy is {each.accuracy_of_all.percent()} %"
    )


def _show_pair(texts: "LabeledTexts", pair: "Pair", answers: "Sequence[Answers]", most: int) -> None:
    from nlpmeta.cli.console import out, printable

    out()
    out(
        printable(
            f"{pair.other} against {pair.baseline} on {pair.n_texts} texts: {pair.gain.percent()} points "
            f"(95 % bootstrap interval over texts); right where the other is wrong {pair.only_other} : "
            f"{pair.only_baseline}, McNemar's exact test p = {pair.p_value:.2g}"
        )
    )
    if not pair.gain.is_clear or pair.p_value >= 0.05:
        out("These texts do not tell the two models apart.")
    out(f"They give {len(pair.differ)} texts different labels" + (":" if pair.differ and most else ""))
    for row in _differ(texts, pair, answers, most):
        said = ", ".join(f"{name}: {guess} {p:.2f}" for name, (guess, p) in row[2].items())
        out(printable(f"  {row[0]!r} is {row[1]}; {said}"))


def _differ(
    texts: "LabeledTexts", pair: "Pair", answers: "Sequence[Answers]", most: int
) -> "list[tuple[str, str, dict[str, tuple[str, float]]]]":
    two = [each for each in answers if each.name in (pair.baseline, pair.other)]
    names = texts.names()
    return [
        (texts.texts[row], names[row], {each.name: each.said_of(row) for each in two}) for row in pair.differ[:most]
    ]


def _model(each: "Answers") -> "dict[str, Json]":
    return {
        "model": each.name,
        "n_scored_texts": each.accuracy.n,
        "accuracy": each.accuracy.json(),
        "macro_f1": round(each.macro_f1, 8),
        "calibration_error": round(each.calibration_error, 8),
        "confused": [list(pair) for pair in each.confused()],
        "unseen_labels": each.unseen,
        "accuracy_with_unseen_as_wrong": each.accuracy_of_all.json(),
    }


def _pair(texts: "LabeledTexts", pair: "Pair", answers: "Sequence[Answers]", most: int) -> "dict[str, Json]":
    return {
        "baseline": pair.baseline,
        "other": pair.other,
        "n_texts": pair.n_texts,
        "difference": pair.gain.json(),
        "mcnemar": {
            "only_baseline_right": pair.only_baseline,
            "only_other_right": pair.only_other,
            "p_value": pair.p_value,
        },
        "n_differ": len(pair.differ),
        "differ": [
            {
                "text": text,
                "label": label,
                "said": {name: {"label": guess, "probability": round(p, 6)} for name, (guess, p) in said.items()},
            }
            for text, label, said in _differ(texts, pair, answers, most)
        ],
    }
