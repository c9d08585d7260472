"""``nlpmeta recipes``: the shipped recipes of meta-training, listed, copied and explained."""

from pathlib import Path
from typing import Annotated

import typer

from nlpmeta.cli.process import AsJson

EXAMPLES = """Examples:

  nlpmeta recipes list

  nlpmeta recipes cp protonet-tiny mine.yaml

  nlpmeta recipes keys
"""

_recipes = typer.Typer(
    no_args_is_help=True, epilog=EXAMPLES, help="List, copy and explain the recipes of meta-training."
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(_recipes, name="recipes")


@_recipes.command("list", epilog=EXAMPLES)
def list_recipes(*, json: AsJson = False) -> None:
    """Print the shipped recipes, each with the first line of what it says about itself."""
    from nlpmeta.cli.console import out_json, out_table
    from nlpmeta.training.recipe_files import about, shipped_recipes

    found = {name: about(path) for name, path in shipped_recipes().items()}
    if json:
        out_json(found)
    else:
        out_table(("recipe", "what it trains"), list(found.items()))


@_recipes.command("cp", epilog=EXAMPLES)
def copy(
    name: Annotated[str, typer.Argument(help="Name of a shipped recipe.")],
    to: Annotated[Path | None, typer.Argument(help="File or folder; NAME.yaml by default.")] = None,
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Copy a shipped recipe, to change it."""
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


@_recipes.command("keys", epilog=EXAMPLES)
def keys() -> None:
    """Print every key that a recipe can have, with its default and meaning."""
    from nlpmeta.cli.console import out_table
    from nlpmeta.training.recipe_files import documented_keys

    out_table(("key", "default", "meaning"), documented_keys())
