"""What ``nlpmeta adapt`` prints for people: a short table."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nlpmeta.cli.console import out, out_table, printable

if TYPE_CHECKING:
    from nlpmeta.adaptation.trial import Measured, Stopwatch, Trial
    from nlpmeta.adaptation.unlabelled import FromTexts
    from nlpmeta.evaluation import Interval, Proportion
    from nlpmeta.trust.mismatch import TaskReport


def show(
    trial: "Trial",
    folder: Path,
    watch: "Stopwatch",
    *,
    found: "TaskReport | None" = None,
    label_next: Sequence[str] | None = None,
    learned: "FromTexts | None" = None,
) -> None:
    """What was measured, with what the support set says of the task, and the texts to label next."""
    from nlpmeta.adaptation.adapt_report import notes_on_figures

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
    for line in notes_on_figures(trial, found):
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


def _show_confused(measured: "Measured") -> None:
    pairs = measured.confused()
    if pairs:
        listed = ", ".join(f"{true} → {guess} ({times})" for true, guess, times in pairs)
        out(printable(f"Most confused (true → predicted, texts): {listed}"))


def _percent(interval: "Interval | Proportion | None") -> str:
    return "" if interval is None else interval.percent()
