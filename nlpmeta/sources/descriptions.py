"""A file of descriptions: what each class is, in words, one or several rows a label."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nlpmeta.data import LabeledTexts
from nlpmeta.data.inputs import is_missing
from nlpmeta.data.labels import checked_descriptions, label_name
from nlpmeta.errors import DataError, visible
from nlpmeta.sources.columns import LABEL_NAMES, TEXT_NAMES, find
from nlpmeta.sources.form import RECOGNISED, TableForm
from nlpmeta.sources.tables import columns_of, refuse_foreign, refuse_nested, rows_of
from nlpmeta.storage.files import sha256

DESCRIPTION_NAMES = ("description", "descriptions", *TEXT_NAMES)


@dataclass(frozen=True)
class Descriptions:
    """Descriptions by label as they are written in a file, and the line where each label comes first."""

    path: Path
    texts: Mapping[str, tuple[str, ...]]
    lines: Mapping[str, int]

    @classmethod
    def of_file(cls, path: Path, form: TableForm = RECOGNISED) -> "Descriptions":
        """Read a table with the columns label and text (or description); a label may have several rows.

        Raises:
            DataError: if it cannot be read, lacks a column, holds nothing, or a row lacks its label or its text.
        """
        refuse_foreign(path)
        found, where = columns_of(path, form), str(path)
        label_column, text_column = (find(names, found, where=where) for names in (LABEL_NAMES, DESCRIPTION_NAMES))
        if label_column is None or text_column is None:
            there = visible(", ".join(found))
            raise DataError(f"{path} has the columns {there}; descriptions need a column label and a column text.")
        texts: dict[str, list[str]] = {}
        lines: dict[str, int] = {}
        for line, row in rows_of(path, form):
            place, text = f"{path}, line {line}", row.get(text_column)
            refuse_nested(text, place, "text", text_column)
            label = label_name(row.get(label_column), where=place)
            if not label:
                raise DataError(f"{place}: a description has no label.")
            if is_missing(text) or not str(text).strip():
                raise DataError(f"{place}: the description of {visible(repr(label))} is empty.")
            if not isinstance(text, str):
                raise DataError(f"{place}: the description of {visible(repr(label))} is {text!r}, not a text.")
            lines.setdefault(label, line)
            texts.setdefault(label, []).append(text)
        if not texts:
            raise DataError(f"{path} holds no descriptions.")
        return cls(path, {label: tuple(each) for label, each in texts.items()}, lines)

    def of(self, classes: "np.ndarray[tuple[int], np.dtype[np.generic]]") -> dict[object, tuple[str, ...]]:
        """The descriptions by the labels of ``classes``.

        Raises:
            DataError: names the line of a label that is none of them, or is there in two spellings.
        """
        return checked_descriptions(self.texts, classes, where=self._where)

    def added_to(self, data: LabeledTexts) -> LabeledTexts:
        """``data`` with the descriptions of its classes.

        Raises:
            DataError: as ``of``.
        """
        found = self.of(np.asarray(data.label_names))
        return replace(data, descriptions=tuple(found.get(name, ()) for name in data.label_names))

    @property
    def name(self) -> str:
        """The file and a digest of what it holds."""
        return f"{self.path} ({sha256(self.path)[:12]})"

    def _where(self, label: object) -> str:
        return f"{self.path}, line {self.lines[str(label)]}"
