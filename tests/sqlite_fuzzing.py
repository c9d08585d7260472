"""SQLite files with one byte changed, or rows of a stranger with the right checksums; each a function of a number."""

import random
import shutil
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from nlpmeta.encoder.table import EmbeddingStore
from nlpmeta.users.file import UsersFile
from nlpmeta.users.heads import checksum, pack, unpack

USERS, FACTS, DIM = tuple(f"user {i}" for i in range(40)), {"method": "m"}, 4
TEXTS = tuple(f"text {i}" for i in range(40))
WORDS = np.asarray(["a", "b"])


def head_of(user: str) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((2, DIM), float(USERS.index(user)))}


def vectors_of(texts: "list[str] | tuple[str, ...]") -> torch.Tensor:
    return torch.stack([torch.arange(DIM) + 10.0 * TEXTS.index(text) for text in texts])


def write_users(path: Path) -> None:
    file = UsersFile(path, FACTS)
    file.write({user: pack(user, head_of(user), WORDS) for user in USERS})
    file.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")  # all of it in one file


def write_embeddings(path: Path) -> None:
    EmbeddingStore(path, DIM).write(TEXTS, vectors_of(TEXTS))


def index_pages(path: Path) -> list[int]:
    """Where the pages of indexes begin, in bytes: by their first byte, of leaves and of inner nodes."""
    content, size = path.read_bytes(), int.from_bytes(path.read_bytes()[16:18], "big")
    return [at for at in range(size, len(content), size) if content[at] in (2, 10)]


def flip(path: Path, random_: random.Random) -> None:
    """Change one byte of an index page that holds something."""
    content, pages = bytearray(path.read_bytes()), index_pages(path)
    used = [at for page in pages for at in range(page, page + 4096) if content[at]]
    content[random_.choice(used)] ^= 1 << random_.randrange(8)
    path.write_bytes(content)


def users_flipped(whole: Path, number: int, to: Path) -> None:
    """Every user is served by the head that is his own, or an error says why not."""
    path = Path(shutil.copy(whole, to / "users.sqlite"))
    flip(path, random.Random(f"users {number}"))
    file = UsersFile(path, FACTS)
    try:
        asked = random.Random(number).sample(USERS, 5)
        found = file.read(asked)
        if set(found) != set(asked):
            raise AssertionError(f"{set(asked) - set(found)} are not found, and nothing says why")
        for user, row in found.items():
            if not torch.equal(unpack(row.state, row.labels)[0]["weight"], head_of(user)["weight"]):
                raise AssertionError(f"{user} gets the head of another one")
    finally:
        file.close()


def users_signed(whole: Path, number: int, to: Path) -> None:
    """A row that a stranger made, with its checksum: read as what it says, or refused."""
    path, random_ = Path(shutil.copy(whole, to / "users.sqlite")), random.Random(f"signed {number}")
    user = random_.choice(USERS)
    with closing(sqlite3.connect(path)) as connection, connection:
        labels, state = connection.execute("SELECT labels, state FROM users WHERE user = ?", (user,)).fetchone()
        changed = bytearray(state if random_.random() < 0.7 else labels.encode())
        for _ in range(random_.randint(1, 3)):
            changed[random_.randrange(len(changed))] = random_.randrange(128)
        state, labels = (bytes(changed), labels) if len(changed) == len(state) else (state, changed.decode())
        row = (labels, state, checksum(user, state, labels), user)
        connection.execute("UPDATE users SET labels = ?, state = ?, checksum = ? WHERE user = ?", row)
    file = UsersFile(path, FACTS)
    try:
        for row in file.read([user]).values():
            unpack(row.state, row.labels)
    finally:
        file.close()


def embeddings_flipped(whole: Path, number: int, to: Path) -> None:
    """What is read is right; what is missing can be written, and is right a few runs later."""
    path = Path(shutil.copy(whole, to / "embeddings.sqlite"))
    flip(path, random.Random(f"embeddings {number}"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(4):  # a file that turns out to be broken while it is written to is started anew only then
            store = EmbeddingStore(path, DIM)
            texts, vectors = store.read(TEXTS)
            if len(texts) and not torch.equal(vectors, vectors_of(texts)):
                raise AssertionError("a text gets the embedding of another one")
            missing = [text for text in TEXTS if text not in texts]
            if missing:
                store.write(missing, vectors_of(missing))
        if len(EmbeddingStore(path, DIM).read(TEXTS)[0]) != len(TEXTS):
            raise AssertionError("some embeddings are lost at every run")
