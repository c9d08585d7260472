"""``nlpmeta train --online``: learn on from one data set after another, or take it back."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from nlpmeta.cli.console import out, out_json, out_table, printable, say

if TYPE_CHECKING:
    from nlpmeta.adaptation.meta_online import OnlineMetaLearner
    from nlpmeta.data import LabeledTexts


def learn_on(
    words: Sequence[str],
    *,
    resume: bool,
    rollback: int | None,
    data_dir: Path | None,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Meet the data sets among ``words`` in their order; the others are ``key=value``.

    The state is saved after each task, so that a run that is stopped has lost one task at most.

    Raises:
        NLPMetaError: if a key is unknown, ``out`` holds something and neither ``resume`` nor ``rollback`` is given, or
            a data set cannot be read.
    """
    from nlpmeta.folders import only_one
    from nlpmeta.sources.loading import load_source

    folder, start, changes, names = _asked(words)
    pools = [load_source(name, data_dir=data_dir).load() for name in names]  # all are read before anything is learned
    with only_one(folder.with_name(f".{folder.name}.lock"), "training"):
        leader = _leader(folder, start, changes, names, go_on=resume or rollback is not None, device=device)
        _learn(leader, folder, list(zip(names, pools, strict=True)), rollback=rollback, quiet=quiet)
    _report(leader, folder, as_json=as_json)


def _learn(
    leader: "OnlineMetaLearner",
    folder: Path,
    pools: "list[tuple[str, LabeledTexts]]",
    *,
    rollback: int | None,
    quiet: bool,
) -> None:
    """Take back, then meet one task after another; the state is saved after each."""
    if rollback is not None:
        gone = leader.rollback(rollback)
        leader.save(folder)
        if not quiet:
            say(f"Taken back: {', '.join(gone)}.")
    for name, pool in pools:
        arrival = leader.meet(pool, name=Path(name).stem, show_progress=not quiet)
        leader.save(folder)
        if not quiet:
            say(f"{arrival.name}: {_percent(arrival.on_arrival)} % on arrival, {_percent(arrival.after)} % after")


def _asked(words: Sequence[str]) -> tuple[Path, str, dict[str, object], list[str]]:
    """The folder, the checkpoint to start from, changed settings, and the data sets."""
    from nlpmeta.recipes.files import parse_change

    is_change = ["=" in word and not Path(word).exists() for word in words]
    given = dict(word.split("=", 1) for word, change in zip(words, is_change, strict=True) if change)
    names = [word for word, change in zip(words, is_change, strict=True) if not change]
    folder, start = Path(given.pop("out", "runs/online")), given.pop("start", "default")
    return folder, start, dict(parse_change(f"{key}={value}") for key, value in given.items()), names


def _leader(
    folder: Path, start: str, changes: dict[str, object], names: list[str], *, go_on: bool, device: str
) -> "OnlineMetaLearner":
    from nlpmeta.adaptation.meta_online import OnlineMetaLearner
    from nlpmeta.adaptation.meta_online_state import OnlineTaskSettings, holds_state
    from nlpmeta.errors import NLPMetaError

    if not holds_state(folder):
        if folder.exists() and any(folder.iterdir()):
            raise NLPMetaError(f"{folder} holds something else. Choose another out=.")
        if not names:
            raise NLPMetaError(
                f"There is no data set to learn from, and {folder} holds nothing yet. Name one, or a file."
            )
        return OnlineMetaLearner.start(start, OnlineTaskSettings.parse(changes, where="--online"), device=device)
    if not go_on:
        raise NLPMetaError(f"{folder} holds what earlier tasks taught. Go on by --resume, or choose another out=.")
    found = OnlineMetaLearner.load(folder, device=device)
    if not changes:
        return found
    changed = {**found.settings.model_dump(mode="json"), **changes}
    return OnlineMetaLearner.load(folder, OnlineTaskSettings.parse(changed, where="--online"), device=device)


def _report(leader: "OnlineMetaLearner", folder: Path, *, as_json: bool) -> None:
    """Every task so far, and how the present state does on those that are kept."""
    review = leader.review() if leader.arrivals else None
    if as_json:
        facts = None if review is None else asdict(review)
        out_json({"out": str(folder), "arrivals": [asdict(arrival) for arrival in leader.arrivals], "review": facts})
        return
    if review is not None:
        now = review.accuracies
        rows = [
            (
                printable(each.name),
                str(each.n_way),
                _percent(each.on_arrival),
                _percent(each.after),
                _percent(now[each.name]) if each.name in now else "",
            )
            for each in leader.arrivals
        ]
        out_table(("task", "ways", "on arrival, %", "after, %", "now, %"), rows)
        out(
            f"{_percent(review.on_arrival)} % on arrival on average; on the tasks that are kept now "
            f"{100 * review.regret:+.1f} points above arrival, {100 * review.forgetting:.1f} points forgotten"
        )
    out(f"checkpoint: {folder}")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
