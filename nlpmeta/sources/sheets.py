"""The first sheet of an Excel workbook."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from zipfile import BadZipFile

from nlpmeta.errors import DataError, DataWarning


def sheet_records(path: Path) -> Iterator[tuple[int, list[object]]]:
    """The cells of each row that is not empty, with its number, the header among them.

    Raises:
        DataError: if ``openpyxl`` is not installed, or the workbook is damaged.
    """
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise DataError(
            f"{path} is an Excel workbook, which needs openpyxl: pip install 'nlpmeta[xlsx]'. Or save it as CSV UTF-8."
        ) from error
    try:
        book = load_workbook(path, read_only=True, data_only=True)
        try:
            if len(book.worksheets) > 1:
                others = len(book.worksheets) - 1
                said = f"{path}: the first sheet, {book.worksheets[0].title!r}, is read; {others} more are not."
                warnings.warn(said, DataWarning, stacklevel=2)
            for number, cells in enumerate(book.worksheets[0].iter_rows(values_only=True), start=1):
                if any(cell is not None for cell in cells):
                    yield number, list(cells)
        finally:
            book.close()
    except (BadZipFile, KeyError, IndexError, ValueError, SyntaxError) as error:  # SyntaxError: XML that is broken
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as an Excel workbook ({error}).") from error
