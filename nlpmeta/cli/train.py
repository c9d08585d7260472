"""``nlpmeta train``: meta-train a learner as a recipe says, or on one data set after another; ``nlpmeta recipes``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlpmeta.cli.process import AsJson, DataFolder, Device, Quiet, loads_encoder

if TYPE_CHECKING:
    from nlpmeta.data import LabeledTexts
    from nlpmeta.online.meta import OnlineMetaLearner
    from nlpmeta.training.engine import RecipeRun

EXAMPLES = """Examples:

  nlpmeta train protonet-tiny

  nlpmeta train recipes/crosslingual.yaml steps=2000 out=runs/mine --data-dir ../data

  nlpmeta train protonet --resume

  nlpmeta train protonet --device cpu

  accelerate launch --num_processes 2 -m nlpmeta train protonet

  nlpmeta train --online tickets.csv reviews.csv out=runs/mine        # continue from the shipped checkpoint

  nlpmeta train --online reviews-may.csv out=runs/mine --resume

  nlpmeta train --online out=runs/mine --rollback 1
"""
RECIPE_EXAMPLES = """Examples:

  nlpmeta recipes list

  nlpmeta recipes cp protonet-tiny mine.yaml

  nlpmeta recipes keys
"""
_recipes = typer.Typer(
    no_args_is_help=True, epilog=RECIPE_EXAMPLES, help="List, copy and explain meta-training recipes."
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(epilog=EXAMPLES, short_help="Meta-train a checkpoint from a recipe.")(loads_encoder(train))
    app.add_typer(_recipes, name="recipes")


def train(
    recipe: Annotated[
        str, typer.Argument(help="A recipe file, or the name of a shipped recipe; with --online, a data set.")
    ],
    changes: Annotated[list[str] | None, typer.Argument(help="Keys to change: steps=100 seed=1 out=runs/mine")] = None,
    *,
    online: Annotated[
        bool, typer.Option("--online", help="Tasks in place of a recipe: learn from one data set after another.")
    ] = False,
    rollback: Annotated[int | None, typer.Option(help="With --online: roll back the last N tasks.", min=1)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in out, if there is one.")] = False,
    device: Device = "auto",
    data_dir: DataFolder = None,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Meta-train a learner; the checkpoint and metrics.jsonl are written to the folder named by the key out."""
    if online:
        _learn_on(
            [recipe, *(changes or [])],
            resume=resume,
            rollback=rollback,
            data_dir=data_dir,
            device=device,
            as_json=json,
            quiet=quiet,
        )
        return
    if rollback is not None:
        from nlpmeta.errors import NLPMetaError

        raise NLPMetaError("--rollback goes with --online.")
    from nlpmeta.training.recipe_files import load_recipe

    loaded = load_recipe(recipe, changes or [])
    from torch import distributed

    from nlpmeta.cli.console import say
    from nlpmeta.training.engine import run_recipe

    try:
        run = run_recipe(
            loaded, data_dir=data_dir, resume=resume, device=device, show_progress=not quiet, say=None if quiet else say
        )
    finally:  # else threads of the group may outlive the interpreter, which aborts a process that is done
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()
    if run.is_main:
        _report(run, as_json=json)


def _report(run: "RecipeRun", *, as_json: bool) -> None:
    from dataclasses import asdict

    from nlpmeta.cli.console import out, out_json, percent

    result = run.result
    if as_json:
        out_json({"out": str(run.out), **asdict(result)})
        return
    out(f"{result.steps} steps in {result.seconds:.0f} s{' (stopped early)' if result.stopped_early else ''}")
    if result.best_accuracy is not None and result.first_accuracy is not None:
        change = (
            f"{percent(result.first_accuracy)} % before, {percent(result.best_accuracy)} % at step {result.best_step}"
        )
        out(f"accuracy on held-out tasks: {change}")
    out(f"checkpoint: {run.out}")


def _learn_on(
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
    from nlpmeta.sources.loading import load_source
    from nlpmeta.storage.folders import only_one

    folder, start, changes, names = _asked(words)
    pools = [load_source(name, data_dir=data_dir).load() for name in names]  # all are read before anything is learned
    with only_one(folder.with_name(f".{folder.name}.lock"), "training"):
        leader = _leader(folder, start, changes, names, go_on=resume or rollback is not None, device=device)
        _learn(leader, folder, list(zip(names, pools, strict=True)), rollback=rollback, quiet=quiet)
    _report_online(leader, folder, as_json=as_json)


def _learn(
    leader: "OnlineMetaLearner",
    folder: Path,
    pools: "list[tuple[str, LabeledTexts]]",
    *,
    rollback: int | None,
    quiet: bool,
) -> None:
    """Take back, then meet one task after another; the state is saved after each."""
    from nlpmeta.cli.console import percent, say

    if rollback is not None:
        gone = leader.rollback(rollback)
        leader.save(folder)
        if not quiet:
            say(f"Taken back: {', '.join(gone)}.")
    for name, pool in pools:
        arrival = leader.meet(pool, name=Path(name).stem, show_progress=not quiet)
        leader.save(folder)
        if not quiet:
            say(f"{arrival.name}: {percent(arrival.on_arrival)} % on arrival, {percent(arrival.after)} % after")


def _asked(words: Sequence[str]) -> tuple[Path, str, dict[str, object], list[str]]:
    """The folder, the checkpoint to start from, changed settings, and the data sets."""
    from nlpmeta.training.recipe_files import parse_change

    is_change = ["=" in word and not Path(word).exists() for word in words]
    given = dict(word.split("=", 1) for word, change in zip(words, is_change, strict=True) if change)
    names = [word for word, change in zip(words, is_change, strict=True) if not change]
    folder, start = Path(given.pop("out", "runs/online")), given.pop("start", "default")
    return folder, start, dict(parse_change(f"{key}={value}") for key, value in given.items()), names


def _leader(
    folder: Path, start: str, changes: dict[str, object], names: list[str], *, go_on: bool, device: str
) -> "OnlineMetaLearner":
    from nlpmeta.errors import NLPMetaError
    from nlpmeta.online.meta import OnlineMetaLearner
    from nlpmeta.online.meta_files import OnlineTaskSettings, holds_state

    if not holds_state(folder):
        if folder.exists() and any(folder.iterdir()):
            raise NLPMetaError(f"{folder} contains something else. Choose another out=.")
        if not names:
            raise NLPMetaError(f"No data set was given, and {folder} is empty. Name a data set or a file.")
        return OnlineMetaLearner.start(start, OnlineTaskSettings.parse(changes, where="--online"), device=device)
    if not go_on:
        raise NLPMetaError(f"{folder} holds earlier tasks. Continue with --resume, or choose another out=.")
    found = OnlineMetaLearner.load(folder, device=device)
    if not changes:
        return found
    changed = {**found.settings.model_dump(mode="json"), **changes}
    return OnlineMetaLearner.load(folder, OnlineTaskSettings.parse(changed, where="--online"), device=device)


def _report_online(leader: "OnlineMetaLearner", folder: Path, *, as_json: bool) -> None:
    """Every task so far, and how the present state does on those that are kept."""
    from nlpmeta.cli.console import out, out_json, out_table, percent

    review = leader.review() if leader.arrivals else None
    if as_json:
        out_json({"out": str(folder), "arrivals": leader.arrivals, "review": review})
        return
    if review is not None:
        now = review.accuracies
        rows = [
            (
                each.name,
                str(each.n_way),
                percent(each.on_arrival),
                percent(each.after),
                percent(now[each.name]) if each.name in now else "",
            )
            for each in leader.arrivals
        ]
        out_table(("task", "ways", "on arrival, %", "after, %", "now, %"), rows)
        out(
            f"{percent(review.on_arrival)} % on arrival on average; on the tasks that are kept now "
            f"{100 * review.regret:+.1f} points above arrival, {100 * review.forgetting:.1f} points forgotten"
        )
    out(f"checkpoint: {folder}")


@_recipes.command("list", epilog=RECIPE_EXAMPLES)
def list_recipes(*, json: AsJson = False) -> None:
    """Print the shipped recipes, each with the first line of its description."""
    from nlpmeta.cli.console import out_json, out_table
    from nlpmeta.training.recipe_files import about, shipped_recipes

    found = {name: about(path) for name, path in shipped_recipes().items()}
    if json:
        out_json(found)
    else:
        out_table(("recipe", "what it trains"), list(found.items()))


@_recipes.command("cp", epilog=RECIPE_EXAMPLES)
def copy(
    name: Annotated[str, typer.Argument(help="Name of a shipped recipe.")],
    to: Annotated[Path | None, typer.Argument(help="File or folder; NAME.yaml by default.")] = None,
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Copy a shipped recipe to edit it."""
    from nlpmeta.cli.console import out
    from nlpmeta.errors import NLPMetaError
    from nlpmeta.storage.files import read_text, write_text
    from nlpmeta.training.recipe_files import find_recipe

    source = find_recipe(name)
    target = to or Path(source.name)
    target = target / source.name if target.is_dir() else target
    if target.exists() and not overwrite:
        raise NLPMetaError(f"{target} already exists and was kept. Pass --overwrite to replace it.")
    write_text(target, read_text(source))
    out(str(target))


@_recipes.command("keys", epilog=RECIPE_EXAMPLES)
def keys() -> None:
    """Print every key that a recipe can have, with its default and meaning."""
    from nlpmeta.cli.console import out_table
    from nlpmeta.training.recipe_files import documented_keys

    out_table(("key", "default", "meaning"), documented_keys())
