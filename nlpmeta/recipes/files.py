"""Recipes on disk: where they are, and reading one with changes from the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nlpmeta.errors import NLPMetaError, UnknownNameError
from nlpmeta.recipes.schema import Recipe

if TYPE_CHECKING:
    from omegaconf import DictConfig

_PACKAGE = Path(__file__).parent.parent


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
    """
    path, shipped = Path(name), shipped_recipes()
    if path.is_file():
        return path
    stem = path.stem if path.suffix in (".yaml", ".yml") else name
    if stem in shipped and (name == stem or path.parent.name in ("recipes", "_recipes")):
        return shipped[stem]
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
    from yaml import YAMLError, safe_load

    path = find_recipe(name)
    config = OmegaConf.create({"out": f"runs/{path.stem}", **_values(path)})
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not key.strip():
            raise NLPMetaError(f"{change!r} is not a change of a recipe; write key=value, for example steps=100.")
        try:
            for place in _places(config, key.strip()):
                OmegaConf.update(config, place, safe_load(value), merge=False, force_add=True)
        except (YAMLError, OmegaConfBaseException, ValueError, TypeError, IndexError) as error:
            raise NLPMetaError(f"{change!r} cannot be applied to {path}: {' '.join(str(error).split())}") from error
    values = OmegaConf.to_container(config, resolve=True)
    return Recipe.parse({str(k): v for k, v in values.items()} if isinstance(values, dict) else {}, where=str(path))


def _places(config: "DictConfig", key: str) -> list[str]:
    """The key itself, or, where it names a list and no number in it, the key in each part of the list."""
    from omegaconf import OmegaConf

    name, dot, rest = key.partition(".")
    if not dot or rest.split(".")[0].isdigit() or not OmegaConf.is_list(config.get(name)):
        return [key]
    return [f"{name}.{number}.{rest}" for number in range(len(config[name]))]


def _values(path: Path, children: tuple[Path, ...] = ()) -> dict[str, object]:
    """What a file says, on top of what its base says."""
    from yaml import YAMLError, safe_load

    if path in children:
        raise NLPMetaError(f"{path} is its own base, by way of {', '.join(map(str, children))}.")
    try:
        found = safe_load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise NLPMetaError(f"{path} is not a recipe: {' '.join(str(error).split())}") from error
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
    """What a recipe says of itself: its first comment line that is not the command."""
    lines = [
        line.lstrip("# ").rstrip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")
    ]
    return next((line for line in lines if line and not line.startswith("nlpmeta ")), "")


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
