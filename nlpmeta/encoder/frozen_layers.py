"""Hidden states of frozen lower layers, computed once per text and kept in memory-mapped files."""

import copy
import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from nlpmeta.encoder.lora import frozen_adapters_digest, lowest_trained_layer
from nlpmeta.encoder.merged import with_parts, with_weights
from nlpmeta.encoder.text_encoder import TextEncoder, Tokens
from nlpmeta.encoder.tokenizing import length_batches
from nlpmeta.errors import NLPMetaError
from nlpmeta.storage.files import (
    disk_errors_said_plainly,
    make_folder,
    open_to_append,
    read_bytes,
    reserve,
    temporary_folder,
    user_cache,
    write_bytes,
)

StatePrecision = Literal["float16", "float32"]
SEGMENT_TOKENS = 1 << 16
_RECORD = np.dtype([("key", "V16"), ("segment", "<u4"), ("start", "<u4"), ("length", "<u4"), ("crc", "<u4")])


_LARGEST_INDEX = 1 << 30  # bytes; a text takes some dozens


class StateStore:
    """Arrays ``(length, dim)`` by key, in files that only grow; what a crash cut short is not found again.

    The index has a checksum a text, which is compared when a text is first read.
    """

    def __init__(self, folder: Path, dim: int, precision: StatePrecision) -> None:
        self.folder, self._dim, self._precision = folder, dim, precision
        with disk_errors_said_plainly(folder):
            make_folder(folder)
            path = folder / "index.bin"
            content = read_bytes(path, most=_LARGEST_INDEX) if path.exists() else b""
            records = np.frombuffer(content[: len(content) // _RECORD.itemsize * _RECORD.itemsize], _RECORD)
            self._places = {r["key"].tobytes(): _place(r) for r in records}
            self._checked: set[bytes] = set()
            self._segments: dict[int, np.memmap[tuple[int, ...], np.dtype[np.generic]]] = {}
            self._end = max(((s, start + length) for s, start, length, _ in self._places.values()), default=(0, 0))
            if len(content) % _RECORD.itemsize:
                write_bytes(path, records.tobytes())  # without the record that a crash cut short
            self._index = open_to_append(path)
        self.n_new = 0
        """Keys that were put in since the files were opened."""

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: bytes) -> "np.ndarray | None":
        """The array of ``key``, or None if it is not there or not whole."""
        place = self._places.get(key)
        if place is None:
            return None
        segment, start, length, crc = place
        states = self._segment(segment)[start : start + length]
        if key not in self._checked:
            if zlib.crc32(states.tobytes()) != crc:
                del self._places[key]
                return None
            self._checked.add(key)
        return states

    def put(self, key: bytes, states: "np.ndarray") -> None:
        """Keep the array of a new key."""
        with disk_errors_said_plainly(self.folder):
            segment, start = self._end
            if start + len(states) > SEGMENT_TOKENS:
                segment, start = segment + 1, 0
            stored = states.astype(self._precision)
            self._segment(segment)
            row = self._dim * stored.itemsize
            reserve(self._path(segment), start * row, len(states) * row)
            self._segment(segment)[start : start + len(states)] = stored
            crc = zlib.crc32(stored.tobytes())
            self._places[key] = (segment, start, len(states), crc)
            self._checked.add(key)
            self.n_new += 1
            self._end = (segment, start + len(states))
            self._index.write(np.array([(key, *self._places[key])], _RECORD).tobytes())

    def flush(self) -> None:
        """Hand the index to the operating system."""
        with disk_errors_said_plainly(self.folder):
            self._index.flush()

    def close(self) -> None:
        """Let go of the files."""
        with disk_errors_said_plainly(self.folder):
            self._index.close()
        self._segments.clear()

    def _segment(self, number: int) -> "np.memmap[tuple[int, ...], np.dtype[np.generic]]":
        if number not in self._segments:
            path = self._path(number)
            mode: Literal["r+", "w+"] = "r+" if path.exists() else "w+"
            self._segments[number] = np.memmap(path, self._precision, mode, shape=(SEGMENT_TOKENS, self._dim))
        return self._segments[number]

    def _path(self, number: int) -> Path:
        return self.folder / f"states-{number:04d}.bin"


class FrozenLayerCache:
    """Runs an encoder from its cut upwards, on states of the lower layers that are computed once per text.

    Raises:
        NLPMetaError: if the encoder's adapters leave no layer below them, or its transformer cannot be cut.
    """

    def __init__(self, encoder: TextEncoder, folder: Path, precision: StatePrecision) -> None:
        layer = lowest_trained_layer(encoder)
        if layer == 0:
            raise NLPMetaError("Adapters train in every layer, so none below them can be cached. Set adapter.layers.")
        self._encoder, self._split = encoder, SplitBackbone(encoder.backbone, layer)
        self._lower = SplitBackbone(encoder.merged().backbone, layer).lower
        self._store = StateStore(folder, encoder.dim, precision)
        self._adapted_below = bool(frozen_adapters_digest(encoder))

    @property
    def computed(self) -> int:
        """Texts whose states were not in the cache."""
        return self._store.n_new

    def on(self, backbone: nn.Module) -> "FrozenLayerCache | None":
        """The same states under a copy of the transformer with other weights above the cut.

        None where adapters below the cut are part of the states, as the copy may have others.
        """
        if self._adapted_below:
            return None
        twin = copy.copy(self)
        twin._split = SplitBackbone(backbone, self._split.layer, check=False)
        return twin

    def hidden(self, tokens: Tokens, mask: Tensor, adapter: Mapping[str, Tensor] | None = None) -> Tensor:
        """The last hidden states of padded texts, ``(n, width, dim)``; ``mask`` ``(n, width)`` marks real tokens."""
        keys = [_key(ids) for ids in tokens]
        self._fill({key: ids for key, ids in zip(keys, tokens, strict=True) if self._store.get(key) is None})
        states = np.zeros((*mask.shape, self._encoder.dim), np.float32)
        for row, key in enumerate(keys):
            found = self._store.get(key)
            assert found is not None  # noqa: S101  # _fill has just put it there
            states[row, : len(found)] = found
        given = torch.from_numpy(states).to(self._encoder.device)
        return self._split.upper(given, None if bool(mask.all()) else mask, adapter)

    @torch.no_grad()
    def _fill(self, missing: Mapping[bytes, list[int]]) -> None:
        if not missing:
            return
        keys, texts = list(missing), list(missing.values())
        for group in length_batches([len(ids) for ids in texts], pass_cost=self._encoder.pass_cost):
            ids, mask = self._encoder.pad([texts[row] for row in group])
            states = self._lower(ids, None if bool(mask.all()) else mask).float().cpu().numpy()
            for row, found in zip(group, states, strict=True):
                self._store.put(keys[row], found[: len(texts[row])])
        self._store.flush()

    def close(self) -> None:
        """Let go of the files."""
        self._store.close()


@contextmanager
def frozen_layer_cache(
    encoder: TextEncoder, precision: StatePrecision, *, folder: Path | None = None
) -> Iterator[FrozenLayerCache]:
    """Within the block ``encoder`` takes the states of its lower layers from a cache.

    The cache is kept between runs, under the digest of the encoder's files, by one process at a time; others, and
    encoders that were built in memory, get a temporary one.

    Args:
        encoder: has adapters that train in its upper layers only.
        precision: how states are stored; float16 takes half the space.
        folder: where to keep the cache instead.
    """
    from filelock import FileLock, Timeout

    layer, below = lowest_trained_layer(encoder), frozen_adapters_digest(encoder)
    with temporary_folder("nlpmeta-states") as temporary:
        files = encoder.files
        if folder is None and files is not None:
            folder = user_cache() / "states" / f"{files.digest[:16]}{below[:16]}-{layer}-{precision}"
        lock = FileLock(
            folder.with_name(f"{folder.name}.lock") if folder is not None else temporary / ".lock", timeout=0
        )
        try:
            if folder is not None:
                make_folder(folder.parent)
            lock.acquire()
        except (Timeout, OSError):
            folder = None
        states = FrozenLayerCache(encoder, folder or temporary / "states", precision)
        encoder.frozen_layers = states
        try:
            yield states
        finally:
            encoder.frozen_layers = None
            states.close()
            lock.release()


def bytes_of(n_tokens: int, dim: int, precision: StatePrecision) -> int:
    """The size of the states of so many tokens."""
    return n_tokens * dim * np.dtype(precision).itemsize


def _place(record: np.void) -> tuple[int, int, int, int]:
    return int(record["segment"]), int(record["start"]), int(record["length"]), int(record["crc"])


def _key(ids: Sequence[int]) -> bytes:
    return hashlib.sha256(np.asarray(ids, "<i4").tobytes()).digest()[:16]


class SplitBackbone:
    """Layers below ``layer`` and layers from there on, as two calls that together are the backbone's one.

    Raises:
        NLPMetaError: if the backbone is not made of one list of layers between embeddings and output.
    """

    def __init__(self, backbone: nn.Module, layer: int, *, check: bool = True) -> None:
        path = _path_of_layers(backbone, int(backbone.config.num_hidden_layers))  # type: ignore[union-attr,arg-type]
        layers = backbone.get_submodule(path)
        assert isinstance(layers, nn.ModuleList)  # noqa: S101  # what _path_of_layers looks for
        self.layer = layer
        self._prefix = f"{path}."
        self._lower = with_parts(backbone, {path: nn.ModuleList(layers[:layer])})
        upper = with_parts(backbone, {path: nn.ModuleList(layers[layer:])})
        self._upper = with_parts(upper, {"embeddings": _Given()})
        if check:
            self._check(backbone)

    def lower(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """Hidden states ``(n, width, dim)`` below the cut of token ids ``(n, width)``."""
        states: Tensor = self._lower(input_ids=ids, attention_mask=mask).last_hidden_state
        return states

    def upper(self, states: Tensor, mask: Tensor | None, adapter: Mapping[str, Tensor] | None = None) -> Tensor:
        """What the whole backbone returns, from the hidden states at the cut; ``adapter`` replaces weights by name."""
        inputs = {"inputs_embeds": states, "attention_mask": mask}
        if not adapter:
            hidden: Tensor = self._upper(**inputs).last_hidden_state
            return hidden
        renamed = {self._renamed(name): weight for name, weight in adapter.items()}
        replaced: Tensor = with_weights(self._upper, renamed)(**inputs).last_hidden_state
        return replaced

    def _renamed(self, name: str) -> str:
        """The name in the upper part of a weight of the backbone."""
        number, _, rest = name.removeprefix(self._prefix).partition(".")
        return f"{self._prefix}{int(number) - self.layer}.{rest}"

    @torch.no_grad()
    def _check(self, backbone: nn.Module) -> None:
        device = next(backbone.parameters()).device
        ids = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]], device=device)
        mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], device=device).bool()
        whole = backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        parts = self.upper(self.lower(ids, mask), mask)
        if not torch.allclose(whole, parts, rtol=1e-4, atol=1e-4):
            raise NLPMetaError(f"{type(backbone).__name__} does more between its layers than can be cut apart.")


class _Given(nn.Module):
    """Stands where the embeddings were and returns the states that are given instead of them."""

    def forward(
        self, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None, **_: object
    ) -> Tensor | None:
        return inputs_embeds


def _path_of_layers(backbone: nn.Module, depth: int) -> str:
    lists = {name: module for name, module in backbone.named_modules() if isinstance(module, nn.ModuleList)}
    found = [str(name) for name, module in lists.items() if len(module) == depth]
    if len(found) != 1 or not hasattr(backbone, "embeddings"):
        raise NLPMetaError(
            f"The lower layers of {type(backbone).__name__} cannot be cached: it has no embeddings then one list "
            f"of {depth} layers. Leave lower_states off."
        )
    return found[0]
