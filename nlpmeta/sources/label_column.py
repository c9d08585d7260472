"""The labels of one file as names: one kind of value, one spelling of what looks the same."""

from dataclasses import dataclass, field

from nlpmeta.errors import DataError
from nlpmeta.labels import folded, kind_of, label_name

_SAID = {str: "text", bool: "a boolean", int: "a number"}


@dataclass
class LabelColumn:
    """Turns the labels of a file into names, row by row.

    A name that differs from an earlier one only in white space or Unicode form is that one; ``respelt`` counts them.
    """

    respelt: int = 0
    _first_line: int = 0
    _first: tuple[type, object, int] | None = None
    _spelling: dict[str, str] = field(default_factory=dict)

    def name(self, value: object, *, line: int, where: str) -> str:
        """The name of a label that is there.

        Raises:
            DataError: if it is of another kind than the first one (text, number, boolean), or has a fraction.
        """
        name = label_name(value, where=f"{where}, line {line}")
        kind = int if kind_of(value) is float else kind_of(value)
        if self._first is None:
            self._first = (kind, value, line)
        first_kind, first, first_line = self._first
        if kind is not first_kind:
            raise DataError(
                f"{where} mixes kinds of labels: {first!r} ({_SAID[first_kind]}, line {first_line}) and {value!r} "
                f"({_SAID[kind]}, line {line}). Write all as text, or all as numbers."
            )
        spelt = self._spelling.setdefault(folded(name), name)
        if spelt != name:
            self.respelt, self._first_line = self.respelt + 1, self._first_line or line
        return spelt

    def said(self) -> str:
        """How many names were read as an earlier one, and where the first is."""
        return (
            f"{self.respelt} labels differ from an earlier one only in white space or Unicode form and are read as "
            f"that one (first: line {self._first_line})"
        )
