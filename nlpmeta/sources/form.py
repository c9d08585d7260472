"""What a user may say about the form of a table, and a file of text opened as what it is, in its encoding."""

import codecs
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from io import TextIOWrapper
from itertools import islice
from lzma import LZMAError
from pathlib import Path
from typing import IO
from zlib import error as ZlibError  # noqa: N812

from nlpmeta.errors import DataError, visible
from nlpmeta.storage.files import open_data

LONGEST_LINE = 16 << 20  # characters
PACKED = {".gz": "gzip", ".bz2": "bz2", ".xz": "lzma"}
_SAMPLE = 1 << 16  # bytes
_SPELLED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}


@dataclass(frozen=True)
class TableForm:
    """The form of a table where the file itself does not make it plain; what is ``None`` is recognised.

    Raises:
        DataError: if the delimiter is not one character, or no such encoding is known.
    """

    delimiter: str | None = None
    encoding: str | None = None
    header: bool = True
    label_separator: str | None = None
    """What stands between the labels of one text, where a text may have several."""

    def __post_init__(self) -> None:
        if self.delimiter is not None:
            delimiter = _SPELLED.get(self.delimiter.lower(), self.delimiter)
            if len(delimiter) != 1 or delimiter in '"\r\n':
                raise DataError(f"--delimiter takes one character such as ';' or the word tab; got {self.delimiter!r}.")
            object.__setattr__(self, "delimiter", delimiter)
        if self.label_separator is not None and (not self.label_separator.strip() or "\n" in self.label_separator):
            raise DataError(f"--label-separator takes a sign such as ';' or '|'; got {self.label_separator!r}.")
        if self.encoding is not None:
            object.__setattr__(self, "encoding", named_encoding(self.encoding))

    @property
    def is_plain(self) -> bool:
        """Whether nothing was said of columns, encoding and header."""
        return replace(self, label_separator=None) == TableForm()


RECOGNISED = TableForm()


@dataclass(frozen=True)
class TextFile:
    """A file of text: packed or not, in its encoding, with its ends of lines, and its beginning."""

    path: Path
    encoding: str
    newline: str
    sample: str
    is_whole: bool

    @classmethod
    def of(cls, path: Path, form: TableForm = RECOGNISED) -> "TextFile":
        """Recognise how ``path`` is written.

        Raises:
            DataError: if it is damaged.
        """
        with damage_said_plainly(path), _unpacked(path) as file:
            sample = file.read(_SAMPLE + 1)
        encoding = form.encoding or recognised(sample)
        text = sample.decode(encoding, errors="replace").removeprefix("\ufeff")
        newline = "\r" if "\r" in text and "\n" not in text else "\n"
        return cls(path, encoding, newline, text, len(sample) <= _SAMPLE)

    @contextmanager
    def opened(self) -> Iterator[IO[str]]:
        """The text as a stream; what cannot be read of it is said with its line.

        Raises:
            DataError: if it is damaged, or not written in its encoding.
        """
        try:
            with (
                damage_said_plainly(self.path),
                _unpacked(self.path) as file,
                TextIOWrapper(file, encoding=self.encoding, newline=self.newline) as stream,
            ):
                yield stream
        except UnicodeError as error:
            with _unpacked(self.path) as file:
                raise DataError(undecodable(self.path, self.encoding, error, file)) from error

    def lines(self) -> Iterator[str]:
        """Each line with its end, of which none takes more memory than a line of a table can need.

        Raises:
            DataError: if one is longer, or as ``opened`` does.
        """
        with self.opened() as stream:
            for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE + 1), ""), start=1):
                if len(line) > LONGEST_LINE:
                    raise DataError(
                        f"{self.path}, line {number}: longer than {LONGEST_LINE >> 20} million characters; "
                        "is it a text file?"
                    )
                yield line.removeprefix("\ufeff") if number == 1 else line

    def first_lines(self) -> list[str]:
        """The whole lines of the beginning."""
        lines = re.split(f"(?<={self.newline})", self.sample)
        return [line for line in (lines if self.is_whole else lines[:-1]) if line]


@contextmanager
def damage_said_plainly(path: Path) -> Iterator[None]:
    """Turn what unpacking says of a damaged file into a sentence.

    Raises:
        DataError: if it is damaged.
    """
    try:
        yield
    except (EOFError, ZlibError, LZMAError) as error:
        raise DataError(f"{path} is damaged or truncated ({error}).") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise DataError(f"{path} is not compressed as its extension says ({error}).") from error


def _unpacked(path: Path) -> IO[bytes]:
    packer = PACKED.get(path.suffix.lower())
    if packer is None:
        return open_data(path)
    stream: IO[bytes] = import_module(packer).open(path, "rb")
    return stream


_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GUESSED = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258"),
    *("cp874", "cp932", "gb18030", "big5", "cp949", "euc_jp", "koi8_r"),
)
_LINES_FOR_A_GUESS = 200


def named_encoding(name: str) -> str:
    """Python's name of an encoding of text.

    Raises:
        DataError: if there is no such encoding.
    """
    try:
        "a".encode(name)
        found = codecs.lookup(name).name
    except (LookupError, ValueError) as error:
        raise DataError(
            f"There is no encoding {visible(repr(name))}; known are utf-8, utf-16, cp1252 (Western Windows), latin-1, "
            "cp1251 (Cyrillic), gb18030 (Chinese), shift_jis (Japanese) and others that Python knows."
        ) from error
    return "utf-8-sig" if found == "utf-8" else found


def recognised(sample: bytes) -> str:
    """The encoding that the beginning of a file shows: by its mark or, for UTF-16, by its zeros; else UTF-8."""
    for mark, name in _MARKS:
        if sample.startswith(mark):
            return name
    high, low = sample[::2].count(0), sample[1::2].count(0)
    for name, mine, other in (("utf-16-le", low, high), ("utf-16-be", high, low)):
        if mine > 4 * other and {"\n", "\r"} & set(sample.decode(name, errors="ignore")):
            return name
    return "utf-8-sig"


def undecodable(path: Path, encoding: str, error: UnicodeError, lines: Iterable[bytes]) -> str:
    """The line that is not in ``encoding``, and what to do: for UTF-8 the encoding that it is most like."""
    spelled = {"utf-8-sig": "UTF-8"}.get(encoding, encoding)
    if encoding.startswith(("utf-16", "utf-32")):
        return f"{path} is not {spelled} throughout ({error}). Name its encoding with --encoding."
    for number, line in enumerate(lines, start=1):
        try:
            line.decode(encoding)
        except UnicodeDecodeError as wrong:
            said = f"{path}, line {number}: byte 0x{line[wrong.start]:02x} is not {spelled}."
            if encoding != "utf-8-sig":
                return f"{said} Name another encoding with --encoding, or leave it out if the file is UTF-8."
            guess = _guess([line, *islice(lines, _LINES_FOR_A_GUESS)])
            return (
                f"{said} Read as {guess} the line is {visible(repr(line.decode(guess).strip()))}; if that is right, "
                f"pass --encoding {guess} (in Python encoding={guess!r})."
            )
    return f"{path} is not {spelled} ({error})."


def _guess(lines: Iterable[bytes]) -> str:
    """The encoding that these lines are most like; of two that are as likely, that of Western Windows."""
    from charset_normalizer import from_bytes

    telling = b"".join(line for line in lines if not line.isascii())
    found = from_bytes(telling, cp_isolation=list(_GUESSED))
    best = found.best()
    if best is None:
        return "latin-1"
    for each in found:
        is_western = each.encoding == "cp1252" or (each is best and "cp1252" in each.could_be_from_charset)
        if is_western and (each.chaos, -each.coherence) <= (best.chaos, -best.coherence):
            return "cp1252"
    return str(best.encoding)
