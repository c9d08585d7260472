"""What a user may say about the form of a table, and a file of text opened as what it is."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from io import TextIOWrapper
from lzma import LZMAError
from pathlib import Path
from typing import IO
from zlib import error as ZlibError  # noqa: N812

from nlpmeta.errors import DataError
from nlpmeta.files import open_data
from nlpmeta.sources.encodings import named_encoding, recognised, undecodable

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

    def __post_init__(self) -> None:
        if self.delimiter is not None:
            delimiter = _SPELLED.get(self.delimiter.lower(), self.delimiter)
            if len(delimiter) != 1 or delimiter in '"\r\n':
                raise DataError(f"--delimiter takes one character such as ';' or the word tab; got {self.delimiter!r}.")
            object.__setattr__(self, "delimiter", delimiter)
        if self.encoding is not None:
            object.__setattr__(self, "encoding", named_encoding(self.encoding))

    @property
    def is_plain(self) -> bool:
        """Whether nothing was said."""
        return self == TableForm()


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
        raise DataError(f"{path} is damaged or cut short ({error}).") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise DataError(f"{path} is not packed as its ending says ({error}).") from error


def _unpacked(path: Path) -> IO[bytes]:
    packer = PACKED.get(path.suffix.lower())
    if packer is None:
        return open_data(path)
    stream: IO[bytes] = import_module(packer).open(path, "rb")
    return stream
