"""What ``nlpmeta score`` prints and writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nlpmeta.cli.console import out, out_table, printable

if TYPE_CHECKING:
    from nlpmeta.checkpoint import Json
    from nlpmeta.data import LabeledTexts
    from nlpmeta.evaluation import Answers, Pair


def report(
    texts: "LabeledTexts", answers: "Sequence[Answers]", pairs: "Sequence[Pair]", *, data: str, show: int
) -> "dict[str, Json]":
    """The JSON object of ``score --json``; shares are fractions of 1."""
    return {
        "data": data,
        "n_texts": len(texts),
        "models": [_model(each) for each in answers],
        "pairs": [_pair(texts, pair, answers, show) for pair in pairs],
    }


def show(texts: "LabeledTexts", answers: "Sequence[Answers]", pairs: "Sequence[Pair]", *, data: str, most: int) -> None:
    """The same for a person."""
    from nlpmeta.evaluation import says_little

    models = "1 model" if len(answers) == 1 else f"{len(answers)} models"
    out(printable(f"{models} on {len(texts)} texts of {data}, each as it was saved"))
    headers = ("model", "scored texts", "accuracy, %", "macro-F1, %", "ECE, %")
    out_table(headers, [_row(each) for each in answers])
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


def write_rows(path: Path, texts: "LabeledTexts", answers: "Sequence[Answers]") -> None:
    """A row a text: its label, and of each model the label and its probability."""
    import csv

    from nlpmeta.files import new_file

    with new_file(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        columns = [f"{each.name}{part}" for each in answers for part in (":label", ":probability")]
        writer.writerow(["text", "label", *columns])
        for row, (text, label) in enumerate(zip(texts.texts, texts.names(), strict=True)):
            said = [each.said_of(row) for each in answers]
            writer.writerow([text, label, *(cell for guess, p in said for cell in (guess, f"{p:.6f}"))])


def _row(each: "Answers") -> tuple[str, ...]:
    f1, error = (f"{100 * value:.1f}" for value in (each.macro_f1, each.calibration_error))
    return each.name, str(each.accuracy.n), each.accuracy.percent(), f1, error


def _unseen(each: "Answers") -> str:
    n_texts, labels = (
        sum(each.unseen.values()),
        ", ".join(f"{name} ({n})" for name, n in list(each.unseen.items())[:10]),
    )
    more = f" and {len(each.unseen) - 10} more" if len(each.unseen) > 10 else ""
    return (
        f"{each.name} does not know {len(each.unseen)} of the labels: {labels}{more}. Their {n_texts} texts are not in "
        f"its figures; counted as wrong, its accuracy is {each.accuracy_of_all.percent()} %"
    )


def _show_pair(texts: "LabeledTexts", pair: "Pair", answers: "Sequence[Answers]", most: int) -> None:
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
