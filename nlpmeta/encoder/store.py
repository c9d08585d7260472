"""Embeddings on disk, one SQLite file for each state of an encoder: the next run finds what this one computed."""

import hashlib
import json
import os
import sqlite3
import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import DataWarning
from nlpmeta.files import user_cache

T = TypeVar("T")
_VERSION = 2  # to be raised when the same encoder comes to embed the same text otherwise, or rows change their form
_PATIENCE = 60.0  # seconds that a write of another process is waited for
_QUESTION_MARKS = 500  # texts asked for in one query
_CHECKSUM = 4  # bytes
_CREATE = "CREATE TABLE IF NOT EXISTS embeddings (text BLOB PRIMARY KEY, vector BLOB)"
_INSERT = "INSERT OR REPLACE INTO embeddings VALUES (?, ?)"


def embeddings_folder() -> Path:
    """Where embeddings are kept: ``NLPMETA_EMBEDDINGS``, or a folder of the user's cache."""
    chosen = os.environ.get("NLPMETA_EMBEDDINGS")
    return Path(chosen) if chosen else user_cache() / "embeddings"


class EmbeddingStore:
    """Vectors by the hash of their text, each with a checksum; several processes can read and write at the same time.

    It is a cache and never in the way: what is damaged is dropped, and where the disk refuses the run goes on without
    it. Each time one warning says so.
    """

    def __init__(self, path: Path, dim: int) -> None:
        self.path, self.dim = path, dim
        self._usable = True

    @classmethod
    def of(cls, encoder: TextEncoder, folder: Path) -> "EmbeddingStore | None":
        """The store for ``encoder`` as it is now, or ``None`` if it can change or nothing says how it tokenizes."""
        if encoder.files is None or any(weight.requires_grad for weight in encoder.parameters()):
            return None
        return cls(folder / f"{encoder.files.digest[:16]}-{state_digest(encoder)[:16]}.sqlite", encoder.dim)

    def read(self, texts: Sequence[str]) -> tuple[list[str], Tensor]:
        """Those of ``texts`` that are here, and their embeddings ``(n_found, dim)``."""
        by_key = {_key(text): text for text in texts}
        nothing: list[tuple[bytes, bytes]] = []
        rows = self._run(lambda connection: _select(connection, list(by_key)), nothing)
        sound = [(by_key[key], row[:-_CHECKSUM]) for key, row in rows if self._is_sound(row)]
        if len(sound) < len(rows):
            _warn(f"{len(rows) - len(sound)} embeddings in {self.path} are damaged; they are computed again.")
        buffer = b"".join(row for _, row in sound)
        vectors = torch.from_numpy(np.frombuffer(buffer, dtype="<f4").reshape(-1, self.dim).astype(np.float32))
        return [text for text, _ in sound], vectors

    def write(self, texts: Sequence[str], vectors: Tensor) -> None:
        """Keep the embeddings ``(len(texts), dim)`` of ``texts``, all of them or, if killed, none."""
        packed = [_with_checksum(row.tobytes()) for row in vectors.numpy().astype("<f4")]
        rows = [(_key(text), row) for text, row in zip(texts, packed, strict=True)]
        self._run(lambda connection: connection.executemany(_INSERT, rows), None)

    def _is_sound(self, row: bytes) -> bool:
        return len(row) == 4 * self.dim + _CHECKSUM and _with_checksum(row[:-_CHECKSUM]) == row

    def _run(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """The result of ``work`` in a transaction of its own; a damaged file is started anew and tried once more."""
        for _ in range(2 if self._usable else 0):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with closing(sqlite3.connect(self.path, timeout=_PATIENCE)) as connection, connection:
                    connection.execute(_CREATE)
                    return work(connection)
            except (sqlite3.OperationalError, OSError) as error:
                _warn(f"Embeddings are not kept in {self.path} ({error}); the next run computes them again.")
                self._usable = False
                return otherwise
            except sqlite3.DatabaseError as error:
                _warn(f"{self.path} was damaged ({error}) and is started anew; its embeddings are computed again.")
                self.path.unlink(missing_ok=True)
        return otherwise


def _select(connection: sqlite3.Connection, keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    for start in range(0, len(keys), _QUESTION_MARKS):
        some = keys[start : start + _QUESTION_MARKS]
        marks = ",".join("?" * len(some))
        found += connection.execute(f"SELECT text, vector FROM embeddings WHERE text IN ({marks})", some)  # noqa: S608
    return found


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def _with_checksum(vector: bytes) -> bytes:
    return vector + zlib.crc32(vector).to_bytes(_CHECKSUM, "little")


def state_digest(encoder: TextEncoder) -> str:
    """A digest of all that decides what ``encoder`` makes of a text; it differs as soon as any weight does."""
    facts: list[object] = [_VERSION, encoder.files and encoder.files.digest]
    facts += [encoder.prefix, encoder.max_length, encoder.normalise, encoder.dim, getattr(encoder, "factors", None)]
    facts += [[name, str(weight.dtype), _sum_of_bits(weight)] for name, weight in encoder.backbone.state_dict().items()]
    facts += [getattr(module, "scaling", None) for module in encoder.backbone.modules() if hasattr(module, "lora_A")]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _sum_of_bits(weight: Tensor) -> int:
    """The weights read as whole numbers, added up: quick enough to do at every start."""
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()]
    return int(weight.detach().contiguous().view(whole).sum(dtype=torch.int64))


def _warn(message: str) -> None:
    warnings.warn(message, DataWarning, stacklevel=4)
