"""What was taught to served models, in one SQLite file: on disk before it is confirmed, and every change can be undone.

A change has a number, which is the version of the model after it. A class or an example says in which change it came
and in which it went, so that what a model knows is those that have not gone, and a change is undone by its number.
"""

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nlpmeta.errors import ModelFolderError, NLPMetaError, UnknownNameError, WorkFailedError
from nlpmeta.storage.files import make_folder

FORMAT = 1
_PATIENCE = 30.0  # seconds that a write of another process is waited for
_TABLES = """
CREATE TABLE models (name TEXT PRIMARY KEY, folder INTEGER NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE changes (model TEXT NOT NULL, number INTEGER NOT NULL, what TEXT NOT NULL, PRIMARY KEY (model, number))
  WITHOUT ROWID;
CREATE TABLE classes (id INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, label TEXT NOT NULL,
  description TEXT NOT NULL, added INTEGER NOT NULL, removed INTEGER);
CREATE TABLE examples (id INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, text TEXT NOT NULL,
  label TEXT NOT NULL, added INTEGER NOT NULL, removed INTEGER);
CREATE TABLE texts (model TEXT NOT NULL, place INTEGER NOT NULL, text TEXT NOT NULL, PRIMARY KEY (model, place))
  WITHOUT ROWID;
CREATE TABLE curve (model TEXT NOT NULL, version INTEGER NOT NULL, examples INTEGER NOT NULL, held_out INTEGER NOT NULL,
  correct INTEGER NOT NULL, PRIMARY KEY (model, version)) WITHOUT ROWID;
CREATE INDEX classes_of ON classes (model);
CREATE INDEX examples_of ON examples (model);
"""


@dataclass(frozen=True)
class Example:
    """A labelled text and its number, which no other example of the file has."""

    id: int
    text: str
    label: str


@dataclass(frozen=True)
class Known:
    """What a model knows after its last change: its classes with a description (which may be empty), its examples.

    ``folder`` says whether it began as a saved model, whose learner goes on learning.
    """

    name: str
    version: int
    classes: Mapping[str, str]
    examples: tuple[Example, ...]
    folder: bool
    changes: int = 0
    """How many changes can be undone."""


@dataclass(frozen=True)
class Changed:
    """What one request changed, as it is on disk; ``known`` examples were there already.

    ``replaced`` are those whose text came with another label, which takes the place of theirs.
    """

    version: int
    added: tuple[Example, ...] = ()
    new_classes: tuple[str, ...] = ()
    replaced: tuple[Example, ...] = ()
    known: int = 0


@dataclass(frozen=True)
class Measured:
    """Of how many examples, held out of ``examples``, how many were classified correctly."""

    version: int
    examples: int
    held_out: int
    correct: int


class Store:
    """The file; any number of threads may use it, one at a time."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            ModelFolderError: if it is damaged, of a newer release, or something else.
            WorkFailedError: if it cannot be written.
        """
        self.path, self._lock = path, threading.Lock()
        make_folder(path.parent)
        try:
            self._connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._prepare()
        except sqlite3.DatabaseError as error:
            kind = WorkFailedError if isinstance(error, sqlite3.OperationalError) else ModelFolderError
            raise kind(f"{path} cannot be used as the file of taught examples: {error}.") from error

    def _prepare(self) -> None:
        with self._change() as at:
            found = int(at.execute("PRAGMA user_version").fetchone()[0])
            if found == 0:
                if at.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise ModelFolderError(f"{self.path} is a database of something else; choose another folder.")
                for statement in _TABLES.strip().split(";\n"):
                    at.execute(statement.rstrip(";"))
                at.execute(f"PRAGMA user_version = {FORMAT}")
            elif found != FORMAT:
                raise ModelFolderError(f"{self.path} has format {found}; this release of nlpmeta reads {FORMAT}.")

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is on disk when the block is left, or none; WorkFailedError if the disk is full."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.OperationalError as error:
                raise WorkFailedError(f"{self.path} could not be written, and is as it was: {error}.") from error
            finally:
                if self._connection.in_transaction:  # SQLite may have rolled back by itself
                    self._connection.execute("ROLLBACK")

    def _read(self, question: str, *values: object) -> list[tuple[object, ...]]:
        with self._lock:
            return self._connection.execute(question, values).fetchall()

    def names(self) -> list[str]:
        """The models of which anything is stored."""
        return [str(name) for (name,) in self._read("SELECT name FROM models ORDER BY name")]

    def known(self, name: str) -> Known:
        """What a model knows. Raises UnknownNameError if there is no such model here."""
        with self._lock:
            self._connection.execute("BEGIN")
            try:
                return _known(self._connection, name)
            finally:
                self._connection.execute("COMMIT")

    def create(
        self, name: str, classes: Mapping[str, str], examples: Sequence[tuple[str, str]], *, folder: bool = False
    ) -> Known:
        """A new model, as its first change, which cannot be undone; ``NLPMetaError`` if there is one of that name."""
        with self._change() as at:
            if at.execute("SELECT 1 FROM models WHERE name = ?", (name,)).fetchone():
                raise NLPMetaError(f"There is a model {name!r} already.")
            at.execute("INSERT INTO models VALUES (?, ?, 1)", (name, folder))
            for label, description in classes.items():
                _insert_class(at, name, label, description, 1)
            for text, label in examples:
                _insert_example(at, name, text, label, 1)
            return _known(at, name)

    def delete(self, name: str) -> None:
        """Forget a model with all that it was taught; ``UnknownNameError`` if there is none of that name."""
        with self._change() as at:
            _version(at, name)
            at.execute("DELETE FROM models WHERE name = ?", (name,))
            for table in ("changes", "classes", "examples", "texts", "curve"):
                at.execute(f"DELETE FROM {table} WHERE model = ?", (name,))  # noqa: S608  # a name of ours

    def teach(self, name: str, pairs: Sequence[tuple[str, str]], described: Mapping[str, str]) -> Changed:
        """Add examples, classes and descriptions; a text that is known under another label gets the new one."""
        with self._change() as at:
            number, before = _version(at, name) + 1, _known(at, name)
            rows = {each.text: each for each in before.examples}
            wanted = dict(pairs)
            new = {text: label for text, label in wanted.items() if text not in rows or rows[text].label != label}
            replaced = tuple(rows[text] for text in new if text in rows)
            new_classes = tuple(
                dict.fromkeys(label for label in [*described, *new.values()] if label not in before.classes)
            )
            other = [label for label, said in described.items() if before.classes.get(label) != said]
            if not new and not other:
                return Changed(before.version, known=len(wanted))
            gone = [(number, each.id) for each in replaced]
            at.executemany("UPDATE examples SET removed = ? WHERE id = ?", gone)
            for label in dict.fromkeys([*other, *new_classes]):
                _remove_class(at, name, label, number)
                _insert_class(at, name, label, described.get(label, ""), number)
            added = tuple(_insert_example(at, name, text, label, number) for text, label in new.items())
            _note(at, name, number, "teach")
            return Changed(number, added, new_classes, replaced, len(wanted) - len(new))

    def remove_example(self, name: str, number: int) -> Changed:
        """Take an example away; its class stays. Raises UnknownNameError if the model has no such example."""
        with self._change() as at:
            version, before = _version(at, name) + 1, _known(at, name)
            if number not in {each.id for each in before.examples}:
                raise UnknownNameError("example", str(number), [])
            at.execute("UPDATE examples SET removed = ? WHERE id = ?", (version, number))
            _note(at, name, version, "remove example")
            return Changed(version)

    def remove_class(self, name: str, label: str) -> Changed:
        """Take a class and its examples away. Raises NLPMetaError if there is no such class, or one would be left."""
        with self._change() as at:
            number, before = _version(at, name) + 1, _known(at, name)
            if label not in before.classes:
                raise UnknownNameError("class", label, before.classes)
            if len(before.classes) < 3:
                raise NLPMetaError(f"Without {label!r} one class would be left; a model needs at least two.")
            _remove_class(at, name, label, number)
            went = "UPDATE examples SET removed = ? WHERE model = ? AND label = ? AND removed IS NULL"
            at.execute(went, (number, name, label))
            _note(at, name, number, "remove class")
            return Changed(number)

    def undo(self, name: str) -> Changed:
        """Take the last change back. Raises NLPMetaError if there is none."""
        with self._change() as at:
            version = _version(at, name) + 1
            (last,) = at.execute("SELECT max(number) FROM changes WHERE model = ?", (name,)).fetchone()
            if last is None:
                raise NLPMetaError(f"The model {name!r} has no change that could be undone.")
            for table in ("classes", "examples"):
                at.execute(f"DELETE FROM {table} WHERE model = ? AND added = ?", (name, last))  # noqa: S608
                at.execute(f"UPDATE {table} SET removed = NULL WHERE model = ? AND removed = ?", (name, last))  # noqa: S608
            at.execute("DELETE FROM changes WHERE model = ? AND number = ?", (name, last))
            at.execute("DELETE FROM curve WHERE model = ? AND version >= ?", (name, last))
            at.execute("UPDATE models SET version = ? WHERE name = ?", (version, name))
            return Changed(version)

    def texts(self, name: str) -> list[str]:
        """The unlabelled texts that are kept with a model."""
        return [str(text) for (text,) in self._read("SELECT text FROM texts WHERE model = ? ORDER BY place", name)]

    def keep_texts(self, name: str, texts: Sequence[str]) -> None:
        """Keep these unlabelled texts with a model, in place of others."""
        with self._change() as at:
            _version(at, name)
            at.execute("DELETE FROM texts WHERE model = ?", (name,))
            at.executemany("INSERT INTO texts VALUES (?, ?, ?)", [(name, i, text) for i, text in enumerate(texts)])

    def measure(self, name: str, found: Measured) -> None:
        """Keep a point of the learning curve."""
        with self._change() as at:
            row = (name, found.version, found.examples, found.held_out, found.correct)
            at.execute("INSERT OR REPLACE INTO curve VALUES (?, ?, ?, ?, ?)", row)

    def curve(self, name: str) -> list[Measured]:
        """The learning curve, earliest first."""
        columns = "version, examples, held_out, correct"
        rows = self._read(f"SELECT {columns} FROM curve WHERE model = ? ORDER BY version", name)  # noqa: S608
        return [Measured(*(int(str(each)) for each in row)) for row in rows]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


def _version(at: sqlite3.Connection, name: str) -> int:
    row = at.execute("SELECT version FROM models WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise UnknownNameError("model", name, [str(each) for (each,) in at.execute("SELECT name FROM models")])
    return int(row[0])


def _known(at: sqlite3.Connection, name: str) -> Known:
    version = _version(at, name)
    live = "WHERE model = ? AND removed IS NULL ORDER BY id"
    classes = dict(at.execute(f"SELECT label, description FROM classes {live}", (name,)).fetchall())  # noqa: S608
    rows = at.execute(f"SELECT id, text, label FROM examples {live}", (name,)).fetchall()  # noqa: S608
    (folder,) = at.execute("SELECT folder FROM models WHERE name = ?", (name,)).fetchone()
    (changes,) = at.execute("SELECT count(*) FROM changes WHERE model = ?", (name,)).fetchone()
    return Known(name, version, classes, tuple(Example(*row) for row in rows), bool(folder), changes)


def _note(at: sqlite3.Connection, name: str, number: int, what: str) -> None:
    at.execute("INSERT INTO changes VALUES (?, ?, ?)", (name, number, what))
    at.execute("UPDATE models SET version = ? WHERE name = ?", (number, name))


def _insert_class(at: sqlite3.Connection, name: str, label: str, description: str, number: int) -> None:
    insert = "INSERT INTO classes (model, label, description, added) VALUES (?, ?, ?, ?)"
    at.execute(insert, (name, label, description, number))


def _remove_class(at: sqlite3.Connection, name: str, label: str, number: int) -> None:
    went = "UPDATE classes SET removed = ? WHERE model = ? AND label = ? AND removed IS NULL"
    at.execute(went, (number, name, label))


def _insert_example(at: sqlite3.Connection, name: str, text: str, label: str, number: int) -> Example:
    insert = "INSERT INTO examples (model, text, label, added) VALUES (?, ?, ?, ?)"
    done = at.execute(insert, (name, text, label, number))
    return Example(int(done.lastrowid or 0), text, label)
