"""Recipes on disk: where they are, and reading one with changes from the command line."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nlpmeta.errors import NLPMetaError, UnknownNameError, visible
from nlpmeta.recipes.schema import Recipe

if TYPE_CHECKING:
    from omegaconf import DictConfig

_PACKAGE = Path(__file__).parent.parent
_LONGEST_LINE = 8  # recipes that are one another's base
_KEY = re.compile(r"[A-Za-z_]\w{0,63}(\.\w{1,64}){0,7}")


def recipe_folder() -> Path:
    """Where the shipped recipes are: inside the installed package, or in the repository it is run from."""
    inside, beside = _PACKAGE / "_recipes", _PACKAGE.parent / "recipes"
    return inside if inside.is_dir() else beside


def shipped_recipes() -> dict[str, Path]:
    """The shipped recipes by name."""
    return {path.stem: path for path in sorted(recipe_folder().glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """The file of a recipe, given by path or by the name of a shipped one.

    Raises:
        UnknownNameError: if it is neither.
        NLPMetaError: if it is a folder, a pipe or a device.
    """
    path, shipped = Path(name), shipped_recipes()
    if path.is_file():
        return path
    stem = path.stem if path.suffix in (".yaml", ".yml") else name
    if stem in shipped and (name == stem or path.parent.name in ("recipes", "_recipes")):
        return shipped[stem]
    if path.exists():
        raise NLPMetaError(f"{path} is not a recipe: it is no regular file.")
    raise UnknownNameError("recipe", name, shipped)


def load_recipe(name: str, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply changes such as ``steps=100``, ``data.0.weight=2`` or, for all parts, ``data.n_query=1``.

    A recipe may name another one as its ``base``, whose keys hold where it has none itself.

    Raises:
        UnknownNameError: if there is no such recipe.
        NLPMetaError: if the file is not YAML or a change is not ``key=value``.
        SettingsError: if keys are unknown or values impossible; all of them are listed.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = find_recipe(name)
    config = OmegaConf.create({"out": f"runs/{path.stem}", **_values(path)})
    for change in changes:
        key, value = parse_change(change)
        try:
            for place in _places(config, key):
                OmegaConf.update(config, place, value, merge=False, force_add=True)
        except (OmegaConfBaseException, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
            reason = visible(str(error).split("\n")[0])
            raise NLPMetaError(f"{visible(change)!r} cannot be applied to {path}: {reason}") from error
    values = OmegaConf.to_container(config, resolve=False)
    return Recipe.parse({str(k): v for k, v in values.items()} if isinstance(values, dict) else {}, where=str(path))


def parse_change(change: str) -> tuple[str, object]:
    """Key and value of ``key=value``; the value is read as in a recipe.

    Raises:
        NLPMetaError: if it is not of that form.
    """
    from nlpmeta.recipes.strict_yaml import plain_value

    key, equals, value = change.partition("=")
    if not equals or not _KEY.fullmatch(key.strip()):
        raise NLPMetaError(f"{visible(change)!r} is not a change of a recipe; write key=value, for example steps=100.")
    try:
        return key.strip(), plain_value(value)
    except ValueError as error:
        raise NLPMetaError(f"{visible(change)!r} is not a change of a recipe: {error}.") from error


def _places(config: "DictConfig", key: str) -> list[str]:
    """The key itself, or, where it names a list and no number in it, the key in each part of the list."""
    from omegaconf import OmegaConf

    name, dot, rest = key.partition(".")
    if not dot or rest.split(".")[0].isdigit() or not OmegaConf.is_list(config.get(name)):
        return [key]
    return [f"{name}.{number}.{rest}" for number in range(len(config[name]))]


def _values(path: Path, children: tuple[Path, ...] = ()) -> dict[str, object]:
    """What a file says, on top of what its base says."""
    from nlpmeta.recipes.strict_yaml import plain_value, read_text

    path = path.resolve()
    if path in children:
        raise NLPMetaError(f"{path} is its own base, by way of {', '.join(map(str, children))}.")
    if len(children) == _LONGEST_LINE:
        raise NLPMetaError(f"{path} is the base of {_LONGEST_LINE} recipes in a row; put some of them together.")
    text = read_text(path)
    try:
        found = plain_value(text)
    except ValueError as error:
        raise NLPMetaError(f"{path} is not a recipe: {error}.") from error
    if not isinstance(found, dict):
        raise NLPMetaError(f"{path} is not a recipe: it holds no keys. See: nlpmeta recipes keys")
    values = {str(key): value for key, value in found.items()}
    base = values.pop("base", None)
    if base is None:
        return values
    beside = path.parent / str(base)
    parent = beside if beside.is_file() else find_recipe(str(base))
    return {**_values(parent, (*children, path)), **values}


def about(path: Path) -> str:
    """What a recipe says of itself: the first sentence of its comment, after the command."""
    from nlpmeta.recipes.strict_yaml import read_text

    lines = itertools.takewhile(lambda line: line.startswith("#"), read_text(path).splitlines())
    words = " ".join(line.lstrip("# ").rstrip() for line in lines if not line.startswith("# nlpmeta "))
    return re.split(r"(?<=\.) (?=[A-Za-z`])", words.strip(), maxsplit=1)[0]


def documented_keys() -> list[tuple[str, str, str]]:
    """Key, default and meaning of everything that a recipe can say."""
    from pydantic import BaseModel

    from nlpmeta.settings import model_in

    def of(model: type[BaseModel], prefix: str) -> list[tuple[str, str, str]]:
        rows = []
        for name, field in model.model_fields.items():
            nested = model_in(field.annotation)
            default = "" if field.is_required() or nested else str(field.get_default(call_default_factory=True))
            rows.append((prefix + name, default, field.description or ""))
            if nested is not None:
                many = "tuple" in str(field.annotation)
                rows += of(nested, f"{prefix}{name}{'.N.' if many else '.'}")
        return rows

    return of(Recipe, "")
