"""CSV and TSV as people have them: which character stands between the columns, and where a row ends."""

import csv
import json
import re
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import IO, Final

from nlpmeta.errors import DataError, DataWarning, visible
from nlpmeta.sources.columns import LABEL_NAMES, TEXT_NAMES
from nlpmeta.sources.form import LONGEST_LINE, TableForm, TextFile

Numbered = tuple[int, list[str]]

DELIMITERS: Final = {".csv": ",", ".tsv": "\t"}
_CANDIDATES: Final = ",;\t|"
_LINE_BY_LINE: Final = "\t|"  # where a double quote is more often a part of the text than a sign around it
_SEP: Final = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_END: Final = re.compile(r"\r\n?|\n")
_MOST: Final = 200  # rows that the delimiter is recognised by


@dataclass
class Records:
    """The rows of delimited lines, each with the number of its first line, as the ``csv`` module reads them.

    A double quote that is opened and not closed where it should be is an error. In a file of tabs or pipes it is a part
    of the text, and so is one whose closing quote comes so late that most lines up to it are rows themselves: no line
    is swallowed. Where the header is quoted, quotes are meant; where a quote inside is doubled they are too, unless
    every single line is a row.
    """

    lines: Iterator[str]
    delimiter: str
    where: str
    doubtful: list[tuple[int, int]] = field(default_factory=list)
    stray_quotes: list[int] = field(default_factory=list)
    rows: int = 0
    _read: int = 0
    _waiting: deque[str] = field(default_factory=deque)
    _width: int = 0
    _header_is_quoted: bool = False

    def __iter__(self) -> Iterator[Numbered]:
        while (line := self._line()) is not None:
            number = self._read
            cells = self._quoted(number, line) if '"' in line else _unquoted(line, self.delimiter)
            if not self.rows:
                self._width = len(cells)
                self._header_is_quoted = line.startswith('"')
            self.rows += 1
            yield number, cells

    def _line(self) -> str | None:
        line = self._waiting.popleft() if self._waiting else next(self.lines, None)
        self._read += line is not None
        return line

    def _quoted(self, number: int, line: str) -> list[str]:
        taken = [line]

        def feed() -> Iterator[str]:
            yield line
            while (more := self._line()) is not None:
                taken.append(more)
                yield more

        is_tolerant = self.delimiter in _LINE_BY_LINE
        try:
            cells = next(csv.reader(feed(), delimiter=self.delimiter, strict=True))
        except csv.Error as error:
            if not is_tolerant:
                raise DataError(
                    f"{self.where}, line {number}: the double quotes do not pair ({error}). Write a double quote "
                    "inside a text twice, between double quotes around the text."
                ) from error
        else:
            if len(taken) == 1:
                return cells
            alike = 0 if self._header_is_quoted else sum(map(self._is_row, taken))
            if any('""' in each for each in taken) and (alike < len(taken) or not is_tolerant):
                alike = 0  # quotes are meant
            if not is_tolerant or 2 * alike <= len(taken):
                if alike > 1:
                    self.doubtful.append((number, self._read))
                return cells
        self.stray_quotes.append(number)
        self._waiting.extendleft(reversed(taken[1:]))
        self._read = number
        return _unquoted(line, self.delimiter)

    def _is_row(self, line: str) -> bool:
        """Whether a line has all the columns by itself."""
        return len(_unquoted(line, self.delimiter)) == self._width

    def note(self) -> None:
        """Say where the rows are not the lines, and it may be that they should be."""
        if self.doubtful:
            first, last = self.doubtful[0]
            warnings.warn(
                f"{self.where}: {self._read} lines are {self.rows} rows, header included: double quotes hold "
                f"lines together that could be rows (lines {first} to {last} are the first of {len(self.doubtful)}).",
                DataWarning,
                stacklevel=2,
            )
        if self.stray_quotes:
            warnings.warn(
                f"{self.where}: a double quote that does not pair was read as a part of the text "
                f"({len(self.stray_quotes)} lines; the first: line {self.stray_quotes[0]}).",
                DataWarning,
                stacklevel=2,
            )


def records_of(file: TextFile, suffix: str, form: TableForm) -> Records:
    """The rows of ``file``, the header among them; a line such as ``sep=;`` at its beginning is skipped."""
    end = _END.search(file.sample)
    if end and end[0] == "\r":  # an old Macintosh; other ends of lines are then parts of texts
        file = replace(file, newline="\r")
    lines, first = file.lines(), file.first_lines()
    named = _SEP.fullmatch(first[0]) if first else None
    if named:
        next(lines)
    delimiter = form.delimiter or (named[1] if named else _delimiter(first, DELIMITERS[suffix]))
    return Records(lines, delimiter, visible(str(file.path)), _read=1 if named else 0)


def _delimiter(lines: Sequence[str], own: str) -> str:
    """The character that most rows agree on: with it they have as many columns as the header, which has several.

    The ``csv`` module's own ``Sniffer`` takes commas in texts for delimiters: each candidate is tried with its reader.
    """
    candidates = [own, *(each for each in _CANDIDATES if each != own)]
    return max(candidates, key=lambda each: _agreement(lines, each))


def _agreement(lines: Iterable[str], delimiter: str) -> tuple[bool, float, int]:
    rows: list[list[str]] = []
    with suppress(DataError):  # quotes that do not pair, perhaps only because the beginning ends here
        rows += (cells for _, (_, cells) in zip(range(_MOST), Records(iter(lines), delimiter, ""), strict=False))
    header, *others = rows or [[""]]
    filled = [cells for cells in others if cells != [""]]
    share = sum(len(cells) == len(header) for cells in filled) / len(filled) if filled else 1
    known = sum(cell.strip().casefold() in (*TEXT_NAMES, *LABEL_NAMES) for cell in header)
    return len(header) > 1, share, known


def _unquoted(line: str, delimiter: str) -> list[str]:
    return line.rstrip("\r\n").split(delimiter)


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
