"""``nlpmeta train``: meta-train a learner as a recipe says."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlpmeta.cli.options import Device
from nlpmeta.cli.status import loads_encoder

if TYPE_CHECKING:
    from nlpmeta.recipes.run import RecipeRun

EXAMPLES = """Examples:

  nlpmeta train protonet-tiny

  nlpmeta train recipes/crosslingual.yaml steps=2000 out=runs/mine --data-dir ../data

  nlpmeta train protonet --resume

  nlpmeta train protonet --device cpu

  accelerate launch --num_processes 2 -m nlpmeta train protonet

  nlpmeta train --online tickets.csv reviews.csv out=runs/mine        # learn on from the checkpoint of the package

  nlpmeta train --online reviews-may.csv out=runs/mine --resume

  nlpmeta train --online out=runs/mine --rollback 1
"""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=EXAMPLES)(loads_encoder(train))


def train(
    recipe: Annotated[
        str, typer.Argument(help="A recipe file, or the name of a shipped recipe; with --online, a data set.")
    ],
    changes: Annotated[list[str] | None, typer.Argument(help="Keys to change: steps=100 seed=1 out=runs/mine")] = None,
    *,
    online: Annotated[
        bool, typer.Option("--online", help="Tasks in place of a recipe: learn from one data set after another.")
    ] = False,
    rollback: Annotated[
        int | None, typer.Option(help="With --online: take back what the last tasks taught.", min=1)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in out, if there is one.")] = False,
    device: Device = "auto",
    data_dir: Annotated[Path | None, typer.Option(help="Mirror folder of the public data sets.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress.")] = False,
) -> None:
    """Meta-train a learner; the finished checkpoint and metrics.jsonl lie in the folder of the key out."""
    if online:
        from nlpmeta.cli.train_online import learn_on

        learn_on(
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
    from nlpmeta.recipes import load_recipe

    loaded = load_recipe(recipe, changes or [])
    from nlpmeta.cli.console import say
    from nlpmeta.recipes.run import run_recipe

    run = run_recipe(
        loaded, data_dir=data_dir, resume=resume, device=device, show_progress=not quiet, say=None if quiet else say
    )
    if run.is_main:
        _report(run, as_json=json)


def _report(run: "RecipeRun", *, as_json: bool) -> None:
    from dataclasses import asdict

    from nlpmeta.cli.console import out, out_json

    result = run.result
    if as_json:
        out_json({"out": str(run.out), **asdict(result)})
        return
    out(f"{result.steps} steps in {result.seconds:.0f} s{' (stopped early)' if result.stopped_early else ''}")
    if result.best_accuracy is not None and result.first_accuracy is not None:
        change = (
            f"{100 * result.first_accuracy:.1f} % before, {100 * result.best_accuracy:.1f} % at step {result.best_step}"
        )
        out(f"accuracy on held-out tasks: {change}")
    out(f"checkpoint: {run.out}")
