"""Recipes on disk: where they are, and reading one, strictly, with changes from the command line."""

import itertools
import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from yaml import MappingNode, Node, SafeLoader, YAMLError, parse
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, Event, NodeEvent
from yaml.reader import Reader

from nlpmeta.errors import NLPMetaError, UnknownNameError, visible
from nlpmeta.storage.files import open_regular
from nlpmeta.training import Recipe

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
        raise NLPMetaError(f"{path} is not a recipe: it is not a regular file.")
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


LARGEST = 1 << 20  # bytes of a recipe; ours have two kilobytes
MOST_VALUES = 20_000
DEEPEST = 20  # lists and groups inside one another
_PLAIN = ("str", "int", "float", "bool", "null", "seq", "map")
_FLOAT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class _Loader(SafeLoader):
    """Text, numbers, yes and no, lists and groups: no dates, no merging, no tags; a key is a text and comes once."""

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, object]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise _Refused(f"the key {_shown(key)} is no text", node.value[number][0])
            if key in keys[:number]:
                raise _Refused(f"the key {_shown(key)} is there twice", node.value[number][0])
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in each if tag.rpartition(":")[2] in _PLAIN]
    for first, each in SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^(?:{_FLOAT.pattern})$"), list("-+.0123456789"))
"""1e-3 is a number too, which it was not in YAML 1.1."""


class _Refused(YAMLError):
    def __init__(self, problem: str, node: Node | Event) -> None:
        super().__init__(problem)
        self.problem, self.problem_mark = problem, node.start_mark


def read_text(path: Path) -> str:
    """The text of a recipe file.

    Raises:
        NLPMetaError: if it is not a regular file, too large, or not UTF-8.
    """
    if not path.is_file():
        raise NLPMetaError(f"{path} is not a recipe: it is not a regular file.")
    with open_regular(path) as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise NLPMetaError(f"{path} is not a recipe: it has more than {LARGEST} bytes, the limit.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NLPMetaError(f"{path} is not a recipe: it is not UTF-8 text (byte {error.start}).") from error


def plain_value(text: str) -> object:
    """The value of a YAML document that has nothing but plain values in it.

    Raises:
        ValueError: says what is wrong and on which line, but repeats nothing of the lines around it.
    """
    try:
        _check_events(text)
        loader = _Loader(text)
        try:
            return _checked(loader.get_single_data())
        finally:
            loader.dispose()
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" (line {mark.line + 1})"
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it is not YAML"
        raise ValueError(f"{visible(str(problem))}{where}") from None


def _check_events(text: str) -> None:
    """Count and judge everything before anything is built of it."""
    depth = values = 0
    for event in parse(text, Loader=SafeLoader):
        if isinstance(event, AliasEvent):
            raise _Refused("aliases (*name) are not read in recipes; write the value out", event)
        if isinstance(event, NodeEvent):
            values += 1
            _check_tag(event)
        if isinstance(event, CollectionStartEvent):
            depth += 1
        elif isinstance(event, CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise _Refused(f"more than {DEEPEST} lists and groups inside one another", event)
        if values > MOST_VALUES:
            raise _Refused(f"more than {MOST_VALUES} values", event)


def _check_tag(event: NodeEvent) -> None:
    tag = getattr(event, "tag", None)
    if tag not in (None, "!") and str(tag).removeprefix("tag:yaml.org,2002:") not in _PLAIN:
        raise _Refused(f"the tag {visible(str(tag), 60)} is not read in recipes", event)


def _checked(value: object) -> object:
    """``value`` if all texts in it can be names and none stands for something else."""
    if isinstance(value, dict):
        for key, each in value.items():
            _checked(key)
            _checked(each)
    elif isinstance(value, list):
        for each in value:
            _checked(each)
    elif isinstance(value, str):
        if "${" in value:
            raise ValueError("recipes read no variables and no environment: ${ has no meaning; write the value out")
        if Reader.NON_PRINTABLE.search(value) or any(c < " " and c not in "\n\t" for c in value):
            raise ValueError(f"the text {_shown(value)} holds a character that does not print")
    return value


def _shown(value: object) -> str:
    return visible(repr(value), 60)
