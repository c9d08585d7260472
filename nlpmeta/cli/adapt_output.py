"""What ``nlpmeta adapt`` prints: a JSON object for programs, a short table for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nlpmeta.cli.console import out, out_table, printable

if TYPE_CHECKING:
    from nlpmeta.adaptation.trial import Measured, Stopwatch, Trial
    from nlpmeta.adaptation.unlabelled import FromTexts
    from nlpmeta.evaluation import Interval, Proportion
    from nlpmeta.files import Json
    from nlpmeta.trust.mismatch import TaskReport


def report(
    trial: "Trial",
    *,
    task: "Mapping[str, Json]",
    lang: str | None,
    folder: Path,
    watch: "Stopwatch",
    found: "TaskReport | None" = None,
) -> "dict[str, Json]":
    """The JSON object of ``adapt --json``, which is also saved as ``report.json``; shares are fractions of 1."""
    return {
        "data": task["data"],
        "lang": lang,
        "method": trial.method.method,
        "chosen": trial.chosen,
        "n_way": trial.task.support.n_way,
        "n_shot": task["shots"],
        "draws": None if trial.task.n_folds else len(trial.method.scores),
        "folds": trial.task.n_folds,
        "scored": trial.scored if trial.method.scores else None,
        "n_texts": trial.n_texts,
        "accuracy": _interval(trial.method.accuracy),
        "macro_f1": _interval(trial.method.macro_f1),
        "chance": trial.chance,
        "baseline": {
            "method": trial.baseline.method,
            "accuracy": _interval(trial.baseline.accuracy),
            "macro_f1": _interval(trial.baseline.macro_f1),
        },
        "calibration_error": trial.method.calibration_error,
        "curve": [{"n_shot": point.n_shot, "accuracy": point.accuracy.json()} for point in trial.curve],
        "n_support": len(trial.task.support),
        "n_query": trial.n_query,
        "scored_on": trial.task.scored_on,
        "left_out": dict(trial.task.left_out),
        "confused": [[true, guess, times] for true, guess, times in trial.method.confused()],
        "cut": None if trial.cut is None else trial.cut.json(),
        "notes_on_figures": _few(trial) + _whom_to_believe(trial, found),
        "task_report": None if found is None else found.json(),
        "seconds": {stage: round(seconds, 3) for stage, seconds in watch.seconds.items()},
        "out": str(folder),
        "task": task,
    }


def show(
    trial: "Trial",
    folder: Path,
    watch: "Stopwatch",
    *,
    found: "TaskReport | None" = None,
    label_next: Sequence[str] | None = None,
    learned: "FromTexts | None" = None,
) -> None:
    """The same for a person, with what the support set says of the task, and the texts to label next."""
    support = trial.task.support
    out(f"{support.n_way} classes, {len(support)} support texts, scored on {trial.task.scored_on}")
    if trial.cut is not None and trial.cut.n_cut:
        out(f"Note: {trial.cut.said('--max-length')}")
    if trial.method.scores:
        out_table(("", "accuracy, %", "macro-F1, %"), _rows(trial))
        out(_caption(trial))
        _show_confused(trial.method)
        if trial.frozen_is_better:
            out("Note: the frozen encoder did better here; such tasks were not in meta-training. Try --checkpoint none")
    if learned is not None:
        out(str(learned))
    for line in found.lines() if found is not None else ():
        out(printable(line))
    for line in _few(trial) + _whom_to_believe(trial, found):
        out(f"Note: {line}")
    if trial.task.left_out:
        rows = sum(trial.task.left_out.values())
        out(f"Left out: {rows} test rows of classes without support ({', '.join(sorted(trial.task.left_out)[:10])})")
    if label_next is not None:
        out("Label next, the most useful first:" if label_next else "Label next: no text is left to ask for")
        for text in label_next:
            out(f"  {printable(text)}")
    stages = ", ".join(f"{stage.replace('_', ' ')} {seconds:.1f} s" for stage, seconds in watch.seconds.items())
    out(f"Time: {stages}")
    out(f"Saved: {folder} (the model {'of all examples' if trial.task.uses_all_examples else 'of the first draw'})")
    out(f'Next: nlpmeta predict {folder} "{printable(support.texts[0])}"')


def _rows(trial: "Trial") -> list[tuple[str, str, str]]:
    name = trial.method.method + (f" ({', '.join(trial.chosen)})" if trial.chosen else "")
    runs = trial.scored.partition(",")[0]
    return [
        (f"{name}, {runs}", _percent(trial.method.accuracy), _percent(trial.method.macro_f1)),
        (
            "baseline: logistic regression",
            _percent(trial.baseline.accuracy),
            _percent(trial.baseline.macro_f1),
        ),
        ("chance", f"{100 * trial.chance:.1f}", ""),
    ]


def _caption(trial: "Trial") -> str:
    """What was scored, and what the intervals are."""
    over = "Wilson's, over the texts" if trial.method.pooled else "over the draws"
    return f"Scored: {trial.scored}. 95 % intervals {over}."


def _few(trial: "Trial") -> list[str]:
    from nlpmeta.evaluation import says_little

    few = says_little(trial.n_texts) if trial.method.scores else None
    return [] if few is None else [few]


def _whom_to_believe(trial: "Trial", found: "TaskReport | None") -> list[str]:
    """Which of the measured and the expected accuracy to rely on, where there are both."""
    from nlpmeta.evaluation import says_little

    if found is None or not trial.method.scores:
        return []
    if found.warns:
        return ["believe the warning and the measured accuracy, not the expected one: that is for sound tasks"]
    if trial.task.n_folds is not None:
        why = "it starts from held-out examples like the measured one, and knows what other tasks of this size reached"
        return [f"of the two accuracies believe the expected one: {why}"]
    if says_little(trial.n_texts) is not None:
        why = f"it rests on many other tasks of this size, the measured one on {trial.n_texts} texts"
        return [f"of the two accuracies believe the expected one: {why}"]
    why = f"it is of {trial.n_texts} texts of this task, the expected one is of the saved model's support set alone"
    return [f"of the two accuracies believe the measured one: {why}"]


def _show_confused(measured: "Measured") -> None:
    pairs = measured.confused()
    if pairs:
        listed = ", ".join(f"{true} → {guess} ({times})" for true, guess, times in pairs)
        out(printable(f"Most confused (true → predicted, texts): {listed}"))


def _interval(interval: "Interval | Proportion | None") -> "Json":
    return {"mean": None, "ci95": None} if interval is None else interval.json()


def _percent(interval: "Interval | Proportion | None") -> str:
    return "" if interval is None else interval.percent()
