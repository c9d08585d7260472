"""The SQLite file behind ``AdapterStore``: one row a user, written whole or not at all, by any number of processes."""

import os
import sqlite3
import threading
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from nlpmeta.data.inputs import values_of
from nlpmeta.errors import DataError, ModelFolderError, NLPMetaError, WorkFailedError, visible
from nlpmeta.storage.files import disk_errors_said_plainly, make_folder
from nlpmeta.users.heads import USER_BYTES, Packed, checksum

APPLICATION = 0x6E6C7061  # "nlpa": how the file says what it is, in SQLite's header
FORMAT_VERSION = 2
"""In version 1 checksums did not cover the name of the user; such a file is brought up to this one when opened."""
_PATIENCE = 60.0  # seconds that a write of another process is waited for
_QUESTION_MARKS = 500  # users asked for in one query
_LARGEST_VALUE = 1 << 20  # bytes: SQLite refuses larger ones, in a file that somebody else made too
_TABLES = {
    "facts": "CREATE TABLE facts (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL)",
    "users": (
        "CREATE TABLE users (user TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL, labels TEXT NOT NULL, "
        "state BLOB NOT NULL, checksum INTEGER NOT NULL)"
    ),
}
_UPSERT = (
    "INSERT INTO users VALUES (?, 1, ?, ?, ?) ON CONFLICT (user) DO UPDATE SET version = version + 1, "
    "labels = excluded.labels, state = excluded.state, checksum = excluded.checksum"
)

_MEND = "Mend it with: sqlite3 FILE REINDEX, or put a copy back."


@dataclass(frozen=True)
class Row:
    """What is stored for a user; ``version`` counts how often it was written."""

    version: int
    labels: str
    state: bytes


class UsersFile:
    """Rows by user. Readers do not wait for writers; a process that is killed leaves the last finished write.

    Every thread and every forked process gets a connection of its own. The file is in SQLite's write-ahead mode: it
    must lie on a local disk, and ``NAME-wal`` and ``NAME-shm`` beside it belong to it.
    """

    def __init__(self, path: Path, facts: Mapping[str, str]) -> None:
        """Open ``path``, or make it.

        Args:
            path: the file.
            facts: what the states depend on; a file with other facts is refused.

        Raises:
            NLPMetaError: if it belongs to another learner or encoder, or is a folder.
            ModelFolderError: if it is no such file, damaged, or of a newer format.
            WorkFailedError: if the disk refuses.
        """
        self.path, self._local = path, threading.local()
        if path.is_dir():
            raise NLPMetaError(f"{path} is a folder; name a file.")
        with disk_errors_said_plainly(path):
            make_folder(path.parent)
        with self._transaction() as connection:
            if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                self._create(connection, facts)
            self._check(connection, facts)

    def read(self, users: Sequence[str]) -> dict[str, Row]:
        """The rows of those of ``users`` that are here.

        Raises:
            ModelFolderError: if a row is damaged.
        """
        found: dict[str, Row] = {}
        with self._connection() as connection:
            for start in range(0, len(users), _QUESTION_MARKS):
                some = users[start : start + _QUESTION_MARKS]
                marks = ",".join("?" * len(some))
                query = f"SELECT user, version, labels, state, checksum FROM users WHERE user IN ({marks})"  # noqa: S608
                for user, *row in connection.execute(query, list(some)):
                    if user not in some:
                        raise ModelFolderError(f"The index of {self.path} is damaged. {_MEND}")
                    found[user] = self._sound(user, *row)
                self._check_missing(connection, [user for user in some if user not in found])
        return found

    def write(self, packed: Mapping[str, Packed]) -> None:
        """Write a row for each user, all of them or, if killed, none."""
        rows = [(user, each.labels, each.state, each.checksum(user)) for user, each in packed.items()]
        with self._transaction() as connection:
            connection.executemany(_UPSERT, rows)

    def remove(self, user: str) -> bool:
        """Forget a user; whether there was one."""
        with self._transaction() as connection:
            return connection.execute("DELETE FROM users WHERE user = ?", (user,)).rowcount > 0

    def users(self) -> list[str]:
        """All names, sorted."""
        with self._connection() as connection:
            return [user for (user,) in connection.execute("SELECT user FROM users ORDER BY user")]

    def count(self) -> int:
        """How many users there are."""
        with self._connection() as connection:
            return int(connection.execute("SELECT count(*) FROM users").fetchone()[0])

    def close(self) -> None:
        """Close the connection of this thread; the next use opens one again."""
        connection = getattr(self._local, "connection", None)
        if connection is not None and self._local.process == os.getpid():
            connection.close()
        self._local.connection = None

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._own()
        except sqlite3.OperationalError as error:
            raise WorkFailedError(f"{self.path} cannot be used: {error}. Nothing was changed.") from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise ModelFolderError(f"{self.path} is damaged or not a user store ({error}).") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.execute("COMMIT")

    def _own(self) -> sqlite3.Connection:
        """The connection of this thread in this process: one that was forked along must not be used."""
        if getattr(self._local, "connection", None) is None or self._local.process != os.getpid():
            connection = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
            try:
                if hasattr(connection, "setlimit"):  # from Python 3.11
                    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_VALUE)
                for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "synchronous=FULL"):
                    connection.execute(f"PRAGMA {pragma}")
                self._check_kind(connection)  # before anything is written: it may be a file of another program
                connection.execute("PRAGMA journal_mode=WAL")
            except (sqlite3.Error, ModelFolderError):
                connection.close()
                raise
            self._local.connection, self._local.process = connection, os.getpid()
        own: sqlite3.Connection = self._local.connection
        return own

    def _create(self, connection: sqlite3.Connection, facts: Mapping[str, str]) -> None:
        for statement in _TABLES.values():
            connection.execute(statement)
        connection.executemany("INSERT INTO facts VALUES (?, ?)", list(facts.items()))
        connection.execute(f"PRAGMA application_id={APPLICATION}")
        connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")

    def _check_kind(self, connection: sqlite3.Connection) -> None:
        has_tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if has_tables and connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
            raise ModelFolderError(f"{self.path} is an SQLite file of something else, not a store of users.")

    def _check(self, connection: sqlite3.Connection, facts: Mapping[str, str]) -> None:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > FORMAT_VERSION:
            raise ModelFolderError(
                f"{self.path} has format version {version}; this release reads up to {FORMAT_VERSION}. "
                "Install a newer release: pip install -U nlpmeta"
            )
        schema = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
        if version < 1 or dict(schema) != _TABLES:  # a trigger or view of somebody else's would run when we write
            raise ModelFolderError(f"{self.path} has other tables than a store of users. It was not touched.")
        stored = dict(connection.execute("SELECT name, value FROM facts").fetchall())
        for name, value in facts.items():
            if stored.get(name) != value:
                raise NLPMetaError(
                    f"{self.path} was made with another {name} ({stored.get(name)}; here {value}): its users' heads "
                    "would be meaningless. Open it with what made it, or adapt the users again in a new file."
                )
        if version < FORMAT_VERSION:
            self._renew(connection)

    def _check_missing(self, connection: sqlite3.Connection, users: Sequence[str]) -> None:
        """See that those whom the index does not know are not in the table either."""
        marks = ",".join("?" * len(users))
        query = f"SELECT count(*) FROM users NOT INDEXED WHERE user IN ({marks})"  # noqa: S608
        if users and connection.execute(query, list(users)).fetchone()[0]:
            raise ModelFolderError(f"The index of {self.path} is damaged. {_MEND}")

    def _renew(self, connection: sqlite3.Connection) -> None:
        """Bring a file of format version 1 up to this one: checksums that cover the name; a damaged row stays so."""
        if (found := connection.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
            raise ModelFolderError(f"{self.path} is damaged ({found}). {_MEND}")
        rows = connection.execute("SELECT rowid, user, labels, state, checksum FROM users").fetchall()
        sound = [
            (checksum(user, state, labels), row)
            for row, user, labels, state, stored in rows
            if isinstance(labels, str) and isinstance(state, bytes) and checksum(None, state, labels) == stored
        ]
        connection.executemany("UPDATE users SET checksum = ? WHERE rowid = ?", sound)
        connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")

    def _sound(self, user: str, version: object, labels: object, state: object, stored: object) -> Row:
        shown = visible(repr(user), 40)
        if not (isinstance(version, int) and isinstance(labels, str) and isinstance(state, bytes)):
            raise ModelFolderError(f"User {shown} in {self.path} is damaged. Adapt to that user again.")
        if len(state) + len(labels) > USER_BYTES or checksum(user, state, labels) != stored:
            raise ModelFolderError(f"User {shown} in {self.path} is damaged. Adapt to that user again.")
        return Row(version, labels, state)


LONGEST = 1000  # bytes in UTF-8
_NOT_IN_NAMES = {"Cc", "Cs", "Zl", "Zp"}  # control characters, half characters, ends of lines


def checked_user(user: object) -> str:
    """``user``, if it can be a name.

    Raises:
        DataError: says why it cannot.
    """
    if not isinstance(user, str):
        raise DataError(
            f"The name of a user must be a text; got {visible(repr(user), 60)} ({visible(type(user).__name__, 30)})."
        )
    if not user:
        raise DataError("The name of a user must not be empty.")
    if len(user) > LONGEST or len(user.encode("utf-8", "replace")) > LONGEST:
        raise DataError(
            f"The name of a user may have {LONGEST} bytes; {visible(repr(user[:40]))}… has {len(user):,} characters."
        )
    wrong = next((c for c in user if unicodedata.category(c) in _NOT_IN_NAMES), None)
    if wrong is not None:
        what = "a lone surrogate" if unicodedata.category(wrong) == "Cs" else "a control character"
        raise DataError(f"The name of a user must be one line of text; {visible(repr(user), 60)} holds {what}.")
    return str(user)


def is_user(user: object) -> TypeGuard[str]:
    """Whether ``user`` can be the name of a user."""
    try:
        checked_user(user)
    except DataError:
        return False
    return True


def checked_users(users: object, *, n_texts: int) -> list[str]:
    """The users of some texts, one each.

    Raises:
        DataError: if there are not as many as texts, or one cannot be a name.
    """
    if isinstance(users, str):
        raise DataError(f"{n_texts} texts need a user each; got one name, not a list of names.")
    given = values_of(users, name="users", what="users")
    if len(given) != n_texts:
        raise DataError(f"{n_texts} texts need a user each; got {len(given)}.")
    return [checked_user(user) for user in given]
