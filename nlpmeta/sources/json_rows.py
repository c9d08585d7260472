"""JSON Lines and JSON arrays, one object at a time."""

import json
import re
from collections.abc import Iterator
from typing import IO, Final

from nlpmeta.errors import DataError
from nlpmeta.sources.form import LONGEST_LINE, TextFile

Row = dict[str, object]

_CHUNK: Final = 1 << 20  # characters
_GAP: Final = re.compile(r"\s*")


def json_rows(file: TextFile) -> Iterator[tuple[int, Row]]:
    """Each object with the number of the line where it begins: of an array, or one a line.

    In an array a text may stand instead of an object: it is the only column, ``text``.

    Raises:
        DataError: if something is not JSON, not an object, or names a key twice.
    """
    return _array(file) if file.sample.lstrip()[:1] == "[" else _lines(file)


def _lines(file: TextFile) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(file.lines(), start=1):
        if not line.strip():
            continue
        where = f"{file.path}, line {number}"
        try:
            value = _DECODER.decode(line.strip())
            _refuse_lone_surrogates(value, line)
        except (ValueError, RecursionError) as error:
            advice = " One object a line, or an array of objects, is read." if file.path.suffix == ".json" else ""
            raise DataError(f"{where}: not valid JSON ({error}).{advice}") from error
        yield number, _object(value, where, line)


def _array(file: TextFile) -> Iterator[tuple[int, Row]]:
    with file.opened() as stream:
        items = _Items(stream, str(file.path))
        items.take("[")
        while items.peek() != "]":
            line, value = items.value()
            row = {"text": value} if isinstance(value, str) else value
            yield line, _object(row, f"{file.path}, line {line}", json.dumps(value, ensure_ascii=False))
            if items.peek() != "]":
                items.take(",")
        items.take("]")
        if items.peek():
            raise DataError(f"{items.where}: something follows the end of the array.")


class _Items:
    """The values in a stream; in memory is never more than one of them and what was read along with it."""

    def __init__(self, stream: IO[str], name: str) -> None:
        self._stream, self._name = stream, name
        self._text, self._at, self._line, self._ended = stream.read(1).removeprefix("\ufeff"), 0, 1, False

    @property
    def where(self) -> str:
        return f"{self._name}, line {self._line}"

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            gap = _GAP.match(self._text, self._at)
            self._advance(gap.end() if gap else self._at)
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more()

    def take(self, expected: str) -> None:
        """Pass over one character."""
        if (there := self.peek()) != expected:
            raise DataError(f"{self.where}: not valid JSON ({there!r} where {expected!r} should be).")
        self._advance(self._at + 1)

    def value(self) -> tuple[int, object]:
        """The next value and the line where it begins."""
        self.peek()
        while True:
            line, is_all = self._line, self._ended or len(self._text) - self._at > LONGEST_LINE
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                if end < len(self._text) or is_all:
                    _refuse_lone_surrogates(value, self._text[self._at : end])
                    self._advance(end)
                    return line, value
            except (ValueError, RecursionError) as error:
                if is_all or isinstance(error, RecursionError | _UnfitError):
                    raise DataError(f"{self.where}: not valid JSON ({error}).") from error
            self._more()

    def _advance(self, to: int) -> None:
        self._line += self._text.count("\n", self._at, to)
        self._at = to

    def _more(self) -> None:
        rest = self._text[self._at :]
        piece = self._stream.read(max(_CHUNK, len(rest)))
        self._text, self._at, self._ended = rest + piece, 0, not piece


class _UnfitError(ValueError):
    """JSON that is whole and still no row."""


def _unique(pairs: list[tuple[str, object]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in (other for other, _ in pairs[:i]))
        raise _UnfitError(f"the key {twice!r} comes twice")
    return row


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique)


def _refuse_lone_surrogates(value: object, source: str) -> None:
    try:
        (json.dumps(value, ensure_ascii=False) if "\\u" in source else source).encode()
    except UnicodeEncodeError as error:
        raise _UnfitError(str(error)) from error


def _object(value: object, where: str, source: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(f'{where}: expected an object like {{"text": …}}, not {source.strip()[:40]!r}.')
    return value
