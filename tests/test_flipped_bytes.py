"""The store of users and the cache of embeddings: one byte of an index, or a row of another kind, never misleads."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest
import torch
from fuzzing import outcome
from sqlite_fuzzing import (
    DIM,
    FACTS,
    TEXTS,
    USERS,
    embeddings_flipped,
    head_of,
    users_flipped,
    users_signed,
    vectors_of,
    write_embeddings,
    write_users,
)

from nlpmeta.encoder.table import EmbeddingStore
from nlpmeta.errors import DataWarning, ModelFolderError
from nlpmeta.users.file import UsersFile
from nlpmeta.users.heads import checksum, unpack

KINDS = {"flipped": (users_flipped, write_users), "signed": (users_signed, write_users)}
KINDS["embeddings"] = (embeddings_flipped, write_embeddings)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_changed_byte_is_refused_or_changes_nothing(kind, tmp_path):
    attack, write = KINDS[kind]
    write(tmp_path / "whole.sqlite")
    found = [outcome(lambda i, to: attack(tmp_path / "whole.sqlite", i, to), i, tmp_path / "to") for i in range(150)]
    assert set(found) <= {"loaded", "refused"}
    assert "loaded" in found


def swapped(path, first, second):
    """Let the index of the users find the row of the one for the name of the other."""
    content = path.read_bytes()
    one, two = first.encode(), second.encode()
    places = [at for at in range(len(content)) if content.startswith(one, at) and content[at - 3] == 3]
    assert len(places) == 1  # in the index: a header of three bytes, then the name
    path.write_bytes(content[: places[0]] + two + content[places[0] + len(two) :])


def test_a_user_whom_the_index_takes_for_another_is_not_served_by_the_other_head(tmp_path):
    write_users(tmp_path / "users.sqlite")
    swapped(tmp_path / "users.sqlite", "user 10", "user 1/")
    file = UsersFile(tmp_path / "users.sqlite", FACTS)
    with pytest.raises(ModelFolderError, match="index of .* is damaged"):
        file.read(["user 10"])
    with pytest.raises(ModelFolderError, match="damaged"):
        file.read(["user 1/"])
    assert torch.equal(unpack(*_content(file, "user 2"))[0]["weight"], head_of("user 2")["weight"])


def _content(file, user):
    row = file.read([user])[user]
    return row.state, row.labels


def test_a_store_of_an_earlier_release_is_brought_up_to_this_one(tmp_path):
    path = tmp_path / "users.sqlite"
    write_users(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        rows = connection.execute("SELECT user, labels, state FROM users").fetchall()
        for user, labels, state in rows:
            old = checksum(None, state, labels) + (user == "user 3")  # one is damaged already
            connection.execute("UPDATE users SET checksum = ? WHERE user = ?", (old, user))
        connection.execute("PRAGMA user_version = 1")
    for _ in range(2):
        file = UsersFile(path, FACTS)
        for user in set(USERS) - {"user 3"}:
            assert torch.equal(unpack(*_content(file, user))[0]["weight"], head_of(user)["weight"])
        with pytest.raises(ModelFolderError, match="user 3"):
            file.read(["user 3"])
        file.close()


def test_a_user_who_is_not_there_is_simply_not_there(tmp_path):
    write_users(tmp_path / "users.sqlite")
    assert set(UsersFile(tmp_path / "users.sqlite", FACTS).read(["user 1", "nobody"])) == {"user 1"}


ROWS = [None, 7, 2.5, "text", b"", b"\x00" * 20, np.full(DIM, np.nan, "<f4").tobytes() + b"\x00" * 4]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_cache_that_does_not_fit_is_made_anew_whatever_it_is(row, tmp_path):
    path = tmp_path / "embeddings.sqlite"
    write_embeddings(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        key = connection.execute("SELECT text FROM embeddings LIMIT 1").fetchone()[0]
        connection.execute("UPDATE embeddings SET vector = ? WHERE text = ?", (row, key))
    store = EmbeddingStore(path, DIM)
    with pytest.warns(DataWarning, match="1 embeddings in .* are damaged"):
        found, _ = store.read(TEXTS)
    missing = [text for text in TEXTS if text not in found]
    assert len(missing) == 1
    store.write(missing, vectors_of(missing))
    texts, vectors = EmbeddingStore(path, DIM).read(TEXTS)
    assert torch.equal(vectors, vectors_of(texts))
    assert len(texts) == len(TEXTS)


def test_the_vector_of_another_text_is_not_taken_for_that_of_this_one(tmp_path):
    path = tmp_path / "embeddings.sqlite"
    write_embeddings(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        keys = [key for (key,) in connection.execute("SELECT text FROM embeddings LIMIT 2")]
        query = "SELECT vector FROM embeddings WHERE text = ?"
        one, two = (connection.execute(query, (key,)).fetchone()[0] for key in keys)
        for key, vector in zip(keys, (two, one), strict=True):
            connection.execute("UPDATE embeddings SET vector = ? WHERE text = ?", (vector, key))
    with pytest.warns(DataWarning, match="2 embeddings"):
        texts, vectors = EmbeddingStore(path, DIM).read(TEXTS)
    assert torch.equal(vectors, vectors_of(texts))


def test_a_cache_with_other_tables_is_started_anew(tmp_path):
    path = tmp_path / "embeddings.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE embeddings (word TEXT)")
    store = EmbeddingStore(path, DIM)
    with pytest.warns(DataWarning, match="is rebuilt"):
        assert store.read(TEXTS)[0] == []
    store.write(TEXTS, vectors_of(TEXTS))
    assert len(EmbeddingStore(path, DIM).read(TEXTS)[0]) == len(TEXTS)
