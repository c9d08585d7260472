"""YAML of strangers: plain values only, read within limits, so that a kilobyte cannot stand for billions of entries."""

import re
from collections.abc import Hashable
from pathlib import Path

from yaml import MappingNode, Node, SafeLoader, YAMLError, parse
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, Event, NodeEvent
from yaml.reader import Reader

from nlpmeta.errors import NLPMetaError, visible
from nlpmeta.files import open_regular

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
        NLPMetaError: if it is no regular file, too large, or not UTF-8.
    """
    if not path.is_file():
        raise NLPMetaError(f"{path} is not a recipe: it is no regular file.")
    with open_regular(path) as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise NLPMetaError(f"{path} is not a recipe: it has more than {LARGEST} bytes, the most that is read.")
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
