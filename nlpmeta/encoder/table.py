"""One table from texts to embeddings: in memory, and kept on disk."""

import hashlib
import json
import os
import sqlite3
import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from nlpmeta.encoder.device import embeds_in_bf16
from nlpmeta.encoder.engines import CompiledEncoder, embed_by
from nlpmeta.encoder.parts import PAIR_FORM
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.encoder.tokenizing import Guard
from nlpmeta.errors import DataWarning
from nlpmeta.progress import track
from nlpmeta.storage.files import make_folder, remove_file, user_cache
from nlpmeta.storage.tensors import sum_of_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")
_VERSION = 3  # to be raised when the same encoder comes to embed the same text otherwise, or rows change their form
_PATIENCE = 60.0  # seconds that a write of another process is waited for
_QUESTION_MARKS = 500  # texts asked for in one query
_CHECKSUM = 4  # bytes
_OTHER_TABLES = 1  # SQLITE_ERROR, such as a column that is not there; known from Python 3.11 on
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
    def of(cls, encoder: TextEncoder, folder: Path, compiled: CompiledEncoder | None = None) -> "EmbeddingStore | None":
        """For ``encoder`` as it is now, or its ``compiled`` form; ``None`` if it can change or was built in memory."""
        if encoder.files is None or any(weight.requires_grad for weight in encoder.parameters()):
            return None
        if compiled is not None:
            facts = hashlib.sha256(json.dumps([_VERSION, *reading_facts(encoder)]).encode()).hexdigest()
            return cls(folder / f"{compiled.folder.name[:16]}-{facts[:16]}-compiled.sqlite", encoder.dim)
        rounded = "-bf16" if embeds_in_bf16(encoder.device) else ""  # other bits than those of float32
        return cls(folder / f"{encoder.files.digest[:16]}-{state_digest(encoder)[:16]}{rounded}.sqlite", encoder.dim)

    def read(self, texts: Sequence[str]) -> tuple[list[str], Tensor]:
        """Those of ``texts`` that are here, and their embeddings ``(n_found, dim)``."""
        by_key = {_key(text): text for text in texts}
        nothing: list[tuple[object, object]] = []
        rows = self._run(lambda connection: _select(connection, list(by_key)), nothing)
        sound: dict[str, NDArray[np.float32]] = {}
        for key, row in rows:
            text = by_key.get(key) if isinstance(key, bytes) else None
            vector = None if text is None else self._vector(key, row)
            if text is not None and vector is not None:
                sound[text] = vector
        if len(sound) < len(rows):
            _warn(f"{len(rows) - len(sound)} embeddings in {self.path} are damaged; they are computed again.")
            self._run(_index_anew, None)
        vectors = np.stack(list(sound.values())) if sound else np.empty((0, self.dim), np.float32)
        return list(sound), torch.from_numpy(vectors)

    def write(self, texts: Sequence[str], vectors: Tensor) -> None:
        """Keep the embeddings ``(len(texts), dim)`` of ``texts``, all of them or, if killed, none."""
        keys, packed = [_key(text) for text in texts], [row.tobytes() for row in vectors.numpy().astype("<f4")]
        rows = [(key, _with_checksum(key, row)) for key, row in zip(keys, packed, strict=True)]

        def put(connection: sqlite3.Connection) -> None:
            connection.executemany(_INSERT, rows)
            if len(_select(connection, keys)) != len(set(keys)):
                raise sqlite3.DatabaseError("its index does not find what was written")

        self._run(put, None)

    def _vector(self, key: object, row: object) -> "NDArray[np.float32] | None":
        """The embedding ``(dim,)`` in a row, or ``None`` if it is none or that of another text."""
        if not isinstance(key, bytes) or not isinstance(row, bytes) or len(row) != 4 * self.dim + _CHECKSUM:
            return None
        if _with_checksum(key, row[:-_CHECKSUM]) != row:
            return None
        vector = np.frombuffer(row[:-_CHECKSUM], dtype="<f4").astype(np.float32)
        return vector if np.isfinite(vector).all() else None

    def _run(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """The result of ``work`` in a transaction of its own; a damaged file is started anew and tried once more."""
        for _ in range(2 if self._usable else 0):
            try:
                make_folder(self.path.parent)
                with closing(sqlite3.connect(self.path, timeout=_PATIENCE)) as connection, connection:
                    connection.text_factory = bytes  # no text is kept here; what is one all the same is looked at first
                    connection.execute(_CREATE)
                    return work(connection)
            except (sqlite3.Error, UnicodeDecodeError, OSError) as error:
                if _is_damage(error):
                    _warn(f"{self.path} was damaged ({error}) and is rebuilt; its embeddings are computed again.")
                    self._remove()
                    continue
                _warn(f"Embeddings are not kept in {self.path} ({error}); the next run computes them again.")
                self._usable = False
                return otherwise
        return otherwise

    def _remove(self) -> None:
        """Remove the file and what SQLite keeps beside it, which would be played into the next one."""
        for suffix in ("", "-journal", "-wal", "-shm"):
            with suppress(OSError):
                remove_file(self.path.with_name(self.path.name + suffix))


def _is_damage(error: Exception) -> bool:
    """Whether it is the file that is wrong: its content, or tables of another form; not the disk, nor another user."""
    if isinstance(error, sqlite3.OperationalError):
        return getattr(error, "sqlite_errorcode", None) == _OTHER_TABLES
    return isinstance(error, sqlite3.DatabaseError | UnicodeDecodeError)


def _select(connection: sqlite3.Connection, keys: Sequence[bytes]) -> list[tuple[object, object]]:
    found: list[tuple[object, object]] = []
    for start in range(0, len(keys), _QUESTION_MARKS):
        some = keys[start : start + _QUESTION_MARKS]
        marks = ",".join("?" * len(some))
        found += connection.execute(f"SELECT text, vector FROM embeddings WHERE text IN ({marks})", some)  # noqa: S608
    return found


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def _with_checksum(key: bytes, vector: bytes) -> bytes:
    """The vector and what it has in common with its text: a row that an index finds under another key is seen."""
    return vector + zlib.crc32(vector, zlib.crc32(key)).to_bytes(_CHECKSUM, "little")


def _index_anew(connection: sqlite3.Connection) -> None:
    """Make the index from the rows again, so that what is now written replaces what was found damaged."""
    connection.execute("REINDEX")


def state_digest(encoder: TextEncoder) -> str:
    """A digest of all that decides what ``encoder`` makes of a text; it differs as soon as any weight does."""
    facts: list[object] = [_VERSION, encoder.files and encoder.files.digest, *reading_facts(encoder)]
    facts += [[name, str(weight.dtype), sum_of_bits(weight)] for name, weight in encoder.backbone.state_dict().items()]
    facts += [getattr(module, "scaling", None) for module in encoder.backbone.modules() if hasattr(module, "lora_A")]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def reading_facts(encoder: TextEncoder) -> list[object]:
    """What decides, beside the weights, what ``encoder`` makes of a text."""
    facts = [encoder.prefix, encoder.max_length, encoder.normalise, encoder.dim, getattr(encoder, "scales", None)]
    facts += [] if encoder.windows is None else [astuple(encoder.windows)]
    facts += [] if encoder.pooling == "mean" else [encoder.pooling]
    return [*facts, f"pairs {PAIR_FORM}"] if encoder.pairs else facts


def _warn(message: str) -> None:
    warnings.warn(message, DataWarning, stacklevel=4)


CHUNK = 1024
"""Texts between two writes to disk: what a run that is killed can lose."""


class EmbeddingTable:
    """The embeddings of an encoder, each distinct text encoded once, by any number of threads.

    The encoder must not change while the table lives. Within ``compiling.embedding_with`` texts are encoded by that
    engine, unless embeddings are kept on disk: those there are PyTorch's, or those of the compiled encoder it is given.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        folder: Path | None = None,
        *,
        compiled: CompiledEncoder | None = None,
        most_bytes: int | None = None,
    ) -> None:
        """Start an empty table.

        Args:
            encoder: what embeds.
            folder: where embeddings are kept between runs (``embeddings_folder()`` is the usual place); ``None``
                keeps them in memory only, and so does an encoder with trainable weights or without a model folder.
            compiled: what ``compiling.embedding_with`` embeds by.
            most_bytes: of the embeddings in memory; what was used longest ago gives way, and is read from disk or
                encoded again when it comes back. ``None`` keeps all.
        """
        self.encoder, self._guard = encoder, Guard()
        self.n_encoded, self.n_tokens = 0, 0
        """Texts that this table had to encode, and their tokens."""
        self._row: dict[str, int] = {}  # under a bound in the order of use, the longest unused first
        self._vectors = torch.empty(0, encoder.dim, device="cpu")
        self._most = None if most_bytes is None else max(1, most_bytes // (4 * encoder.dim))
        self._store = None if folder is None else EmbeddingStore.of(encoder, folder, compiled)
        self._by_torch = self._store is not None and compiled is None

    @classmethod
    def of(cls, encoder: TextEncoder, texts: Sequence[str], vectors: Tensor) -> Self:
        """A table that holds the embeddings ``(len(texts), dim)`` of distinct texts, which stay where they are."""
        table = cls(encoder)
        table._row, table._vectors = {text: row for row, text in enumerate(texts)}, vectors
        return table

    @property
    def nbytes(self) -> int:
        """Bytes of the embeddings in memory."""
        return self._vectors.nbytes

    def prime(self, texts: Sequence[str], *, show_progress: bool = False) -> None:
        """Make sure that all of ``texts`` are in the table; those that were never embedded are, in one sorted pass."""
        with self._guard:
            self._keep(*self._fetched(texts, show_progress))

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """The embeddings of ``texts`` in their order, shape ``(len(texts), dim)``, where the encoder is."""
        with self._guard:
            fetched, new = self._fetched(texts)
            number = {text: row for row, text in enumerate(fetched)}
            held = [i for i, text in enumerate(texts) if text not in number]
            others = [i for i, text in enumerate(texts) if text in number]
            found = self._vectors.new_empty(len(texts), self.encoder.dim)
            found[held] = self._vectors[[self._row[texts[i]] for i in held]]
            found[others] = new[[number[texts[i]] for i in others]]
            for i in held if self._most is not None else ():
                self._row[texts[i]] = self._row.pop(texts[i])
            self._keep(fetched, new)
        return found.to(self.encoder.device)

    @torch.no_grad()
    def _fetched(self, texts: Sequence[str], show_progress: bool = False) -> tuple[list[str], Tensor]:
        """Those of ``texts`` that are not in memory and their embeddings: from disk, else from the encoder."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._row]
        found, parts = list[str](), [self._vectors[:0]]
        if missing and self._store is not None:
            found, read = self._store.read(missing)
            parts.append(read)
            known = set(found)
            missing = [text for text in missing if text not in known]
        missing.sort(key=len)  # neighbours then need little padding
        return [*found, *missing], torch.cat([*parts, *self._encoded(missing, show_progress)])

    def _encoded(self, texts: list[str], show_progress: bool) -> list[Tensor]:
        if not texts:
            return []
        parts, encoder, embed = list[Tensor](), self.encoder, None if self._by_torch else embed_by.get()
        with track("Encoding", len(texts)) if show_progress else nullcontext() as advance:
            for start in range(0, len(texts), CHUNK):
                chunk = texts[start : start + CHUNK]
                tokens = encoder.tokenize(chunk)
                found = None if embed is None else embed(encoder, tokens, advance)
                made = encoder.merged().embed_tokens(tokens, advance=advance) if found is None else found
                parts.append(made.float().to(self._vectors.device))
                self.n_encoded, self.n_tokens = self.n_encoded + len(chunk), self.n_tokens + sum(map(len, tokens))
                if self._store is not None:
                    self._store.write(chunk, parts[-1])
        return parts

    def _keep(self, texts: Sequence[str], vectors: Tensor) -> None:
        """Put new texts into the table; under a bound they take the places of those that were used longest ago."""
        if self._most is None:
            first = len(self._vectors)
            self._vectors = torch.cat([self._vectors, vectors]) if len(texts) else self._vectors
            self._row.update({text: first + i for i, text in enumerate(texts)})
            return
        room = min(self._most, len(self._row) + len(texts))
        if room > len(self._vectors):
            size = min(self._most, max(room, 2 * len(self._vectors)))
            more = self._vectors.new_empty(size - len(self._vectors), self.encoder.dim)
            self._vectors = torch.cat([self._vectors, more])
        for text, vector in zip(texts, vectors, strict=True):
            row = len(self._row) if len(self._row) < self._most else self._row.pop(next(iter(self._row)))
            self._row[text] = row
            self._vectors[row] = vector
