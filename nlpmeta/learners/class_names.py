"""Names of classes as texts: ``alarm_set`` says something about its class, ``label 3`` does not."""

import re
from collections.abc import Sequence

_OPAQUE = re.compile(r"(class|label|category|cat|intent|topic|group|type|[a-z])?\d+", re.IGNORECASE)
_FEWEST_LETTERS = 2


def readable_names(label_names: Sequence[str]) -> tuple[str, ...] | None:
    """The names in plain words (``IoT/hueLight_on`` becomes ``io t hue light on``), or ``None`` where they say nothing.

    Names say nothing if any of them is a number, a letter, or a number behind a word such as ``class``, or if two are
    the same once they are in plain words.
    """
    plain = tuple(" ".join(_words(name)) for name in label_names)
    opaque = any(_is_opaque(name) for name in plain)
    return None if opaque or len(set(plain)) < len(plain) else plain


def _words(name: str) -> list[str]:
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.split(r"[\W_]+", parted.casefold().strip("_ \t\n"))


def _is_opaque(name: str) -> bool:
    letters = sum(letter.isalpha() for letter in name)
    return letters < _FEWEST_LETTERS or _OPAQUE.fullmatch(name.replace(" ", "")) is not None
