"""Summaries of results/auto.json per dataset, and its tables."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from nlpmeta.metrics import error_of_bins
from nlpmeta.metrics.scores import paired_difference

BASELINE = "frozen logistic regression"
Row = Mapping[str, "object"]


def summary(tasks: Sequence[Row]) -> dict[str, object]:
    """The figures of each set and number of shots, and of all."""
    scored = [task for task in tasks if "accuracy" in task]
    scope = [task for task in tasks if "auroc_score" in task]
    sets = list(dict.fromkeys(str(task["set"]) for task in scored))
    shots = sorted({int(task["n_shot"]) for task in scored})
    found: dict[str, object] = {"n_tasks": len(scored)}
    found["sets"] = {name: of_tasks([t for t in scored if t["set"] == name]) for name in sets}
    found["sets_by_shots"] = {
        f"{name}, {shot} shots": of_tasks([t for t in scored if t["set"] == name and t["n_shot"] == shot])
        for name in sets
        for shot in shots
    }
    found["shots"] = {str(shot): of_tasks([t for t in scored if t["n_shot"] == shot]) for shot in shots}
    found["all"] = of_tasks(scored)
    found["warnings"] = {
        "clean": _rate([bool(t["report"]["warns"]) for t in scored]),
        **{kind: _rate([bool(t[kind]) for t in scored if kind in t]) for kind in ("random_labels", "unknown_script")},
        "random_labels_by_set": {
            f"{name}, {shot} shots": _rate(
                [
                    bool(t["random_labels"])
                    for t in scored
                    if "random_labels" in t and (t["set"], t["n_shot"]) == (name, shot)
                ]
            )
            for name in sets
            for shot in shots[1:]
        },
    }
    names = [name for name in (scope[0] if scope else ()) if name.startswith(("auroc", "recall", "in_scope"))]
    found["out_of_scope"] = {name: float(np.mean([task[name] for task in scope])) for name in names}
    return found


def of_tasks(tasks: Sequence[Row]) -> dict[str, object]:
    """Means over tasks; the calibration error is that of all their query texts together."""
    if not tasks:
        return {}
    methods = [name for name in tasks[0]["accuracy"] if all(name in task["accuracy"] for task in tasks)]
    each = {name: [task["accuracy"][name] for task in tasks] for name in methods}
    means = {name: float(np.mean(values)) for name, values in each.items()}
    best = max((name for name in methods if name != "auto"), key=lambda name: means[name])
    inside = [task["report"]["low"] <= task["accuracy"]["auto"] <= task["report"]["high"] for task in tasks]
    return {
        "n_tasks": len(tasks),
        "accuracy": means,
        "best_single": best,
        "auto_minus_best_single": paired_difference(each[best], each["auto"]).json(),
        "auto_minus_frozen": paired_difference(each[BASELINE], each["auto"]).json(),
        "calibration_error": float(error_of_bins(np.sum([task["bins"] for task in tasks], axis=0))),
        "sets": {
            level: {
                key: float(np.mean([task["sets"][level][key] for task in tasks])) for key in tasks[0]["sets"][level]
            }
            for level in tasks[0]["sets"]
        },
        "in_expected_band": _rate(inside),
        "expected_minus_accuracy": float(np.mean([t["report"]["expected"] - t["accuracy"]["auto"] for t in tasks])),
        "adapt_seconds": float(np.mean([task["adapt_seconds"] for task in tasks])),
    }


def show(results: Mapping[str, object]) -> None:
    """The tables for docs/adaptation.md."""
    found = results["summary"]
    print(f"{found['n_tasks']} tasks\n")
    print("| dataset | tasks | auto | best single head, with hindsight | difference | frozen logistic | difference |")
    print("|---|---|---|---|---|---|---|")
    for name, facts in (*found["sets_by_shots"].items(), *found["sets"].items(), ("all", found["all"])):
        if facts:
            print(_line(name, facts))
    print("\n| dataset | calibration error | 90 % set coverage | labels per set | one label | accuracy in the band |")
    print("|---|---|---|---|---|---|")
    shots = ((f"all sets, {n} shots", facts) for n, facts in found["shots"].items())
    for name, facts in (*found["sets_by_shots"].items(), *shots, ("all", found["all"])):
        if facts:
            sets = facts["sets"]["0.9"]
            cells = [
                f"{100 * facts['calibration_error']:.1f} %",
                f"{100 * sets['covered']:.1f} %",
                f"{sets['size']:.1f}",
            ]
            cells += [f"{100 * sets['one_label']:.0f} %", f"{100 * facts['in_expected_band']['share']:.0f} %"]
            print(f"| {name} | {' | '.join(cells)} |")
    five = [
        facts["calibration_error"] for name, facts in found["sets_by_shots"].items() if ", 5 shots" in name and facts
    ]
    print(f"\nmean calibration error of the sets at 5 shots: {100 * np.mean(five):.1f} %")
    print(f"out of scope: {found['out_of_scope']}")
    for kind, facts in found["warnings"].items():
        print(f"warned, {kind}: {facts}")


def _line(name: str, facts: Mapping[str, object]) -> str:
    means, best = facts["accuracy"], facts["best_single"]
    gains = [_points(facts[f"auto_minus_{other}"]) for other in ("best_single", "frozen")]
    cells = [
        f"{100 * means['auto']:.1f}",
        f"{100 * means[best]:.1f} ({best})",
        gains[0],
        f"{100 * means[BASELINE]:.1f}",
    ]
    return f"| {name} | {facts['n_tasks']} | {' | '.join(cells)} | {gains[1]} |"


def _points(difference: Mapping[str, float | None]) -> str:
    mean, low, high = (difference[key] for key in ("mean", "low", "high"))
    return f"{100 * mean:+.1f}" + ("" if low is None else f" ({100 * low:.1f} to {100 * high:.1f})")


def _rate(happened: Iterable[bool]) -> dict[str, float | int]:
    values = list(happened)
    return {"n": len(values), "share": float(np.mean(values)) if values else 0.0}
