"""How an encoder is seen: with its adapters, without them, its lower layers; loaded when something needs its weights.

Where a compiled form embeds that is never.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, get_args
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from nlpmeta.encoder.engines import FROZEN as FROZEN_NAME
from nlpmeta.encoder.engines import LOWER, CompiledEncoder, CompiledName, Precision, runtime_version
from nlpmeta.encoder.files import folder_digest, read_object, views_note
from nlpmeta.encoder.lora import adapter_weights
from nlpmeta.encoder.merged import INNER, scales_with
from nlpmeta.encoder.parts import view_width
from nlpmeta.encoder.text_encoder import TextEncoder, Tokens
from nlpmeta.encoder.tokenizing import Guard
from nlpmeta.encoder.vocabulary import Vocabulary
from nlpmeta.encoder.weights import EncoderFiles
from nlpmeta.errors import ModelFolderError, NLPMetaError
from nlpmeta.progress import Advance
from nlpmeta.storage.files import write_json
from nlpmeta.storage.tensors import digest_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADAPTED, FROZEN = 1.0, 0.0
VIEWS = (ADAPTED, FROZEN, INNER)
PASSES = ((FROZEN,), (ADAPTED, INNER))
"""The views that one pass of the transformer gives, where its lower layers end as their own transformer would."""


class ScaledEncoder(TextEncoder):
    """Embeddings ``(n, n_views * dim)`` of an encoder whose adapters are scaled by one number after the other.

    For a head that chooses between the adapted and the frozen encoder, or reads both; ``INNER`` among the numbers is
    the view of the adapted one's lower layers. It shares the weights of the encoder that it is made from; no gradient
    goes through it.
    """

    def __init__(self, encoder: TextEncoder, scales: Sequence[float] = (ADAPTED, FROZEN)) -> None:
        self.__dict__.update(encoder.__dict__)  # with the weights, also those that are still to be loaded
        self.scales, self.frozen_layers, self.training = tuple(scales), None, False
        self.dim = len(self.scales) * view_width(self.width, self.pairs)

    def select(self, scales: Sequence[float]) -> "ScaledEncoder":
        """The same encoder seen with these scales."""
        return ScaledEncoder(self, scales)

    def plain(self) -> TextEncoder:
        """The encoder as it is trained: seen once, with adapters that can be put in place of its own."""
        twin = object.__new__(TextEncoder)
        twin.__dict__.update(self.__dict__)
        twin.dim = view_width(self.width, self.pairs)
        return twin

    def columns(self, scale: float) -> slice:
        """Where the embeddings with this scale stand."""
        width, place = self.dim // len(self.scales), self.scales.index(scale)
        return slice(place * width, (place + 1) * width)

    @torch.no_grad()
    def embed_tokens(
        self,
        tokens: Tokens,
        *,
        adapter: Mapping[str, Tensor] | None = None,
        adapter_of: Tensor | None = None,
        batch_tokens: int | None = None,
        advance: Advance | None = None,
    ) -> Tensor:
        if not tokens:
            return torch.empty(0, self.dim, device=self.device)
        parts: dict[float, Tensor] = {}
        for scale in self.scales:
            if scale in parts:
                continue
            seen, both = super().merged(scale), scale == ADAPTED and INNER in self.scales
            seen.beside = _layer_beside(seen.backbone, super().merged(INNER).backbone) if both else None
            views = (scale,) if seen.beside is None else (scale, INNER)
            seen.dim *= len(views)
            last = len(parts) + len(views) == len(self.scales)  # only then is a text done
            found = seen.embed_tokens(tokens, batch_tokens=batch_tokens, advance=advance if last else None)
            parts |= zip(views, found.chunk(len(views), dim=1), strict=True)
        return torch.cat([parts[scale] for scale in self.scales], dim=1)

    def merged(self, scale: float | None = None) -> TextEncoder:
        """Itself, as each view merges for itself, or the view with ``scale``."""
        return self if scale is None else super().merged(scale)


_beside: "WeakKeyDictionary[nn.Module, int | None]" = WeakKeyDictionary()


def _layer_beside(whole: "PreTrainedModel", lower: "PreTrainedModel") -> int | None:
    """The layer of ``whole`` whose states are those that ``lower`` ends with: one pass then gives both views.

    ``None`` where there is none, as in transformers that end with a norm of their own.
    """
    if lower not in _beside:
        layer, place = int(lower.config.num_hidden_layers), next(lower.parameters()).device
        ids = torch.ones(1, 3, dtype=torch.long, device=place)
        states = whole(input_ids=ids, output_hidden_states=True).hidden_states[layer]
        alike = torch.allclose(states, lower(input_ids=ids).last_hidden_state, atol=1e-5)
        _beside[lower] = layer if alike else None
    return _beside[lower]


_VIEWS = (None, 1.0, 0.0, INNER)  # the adapters as they are, then the views of auto
Opened: TypeAlias = dict[tuple[object, ...], tuple[tuple[nn.Module, ...], CompiledEncoder]]
"""Compiled forms by scales and precision, each with the transformers that it was made of."""


@dataclass(eq=False)
class Deferred:
    """What ``TextEncoder.later`` is while nothing has asked for the weights."""

    make: Callable[[], TextEncoder]  # loads it, with its adapters
    adapter: Path  # the folder that these come from
    views: Mapping[str, str]  # what each view is called in a CompiledName
    vocabulary: Vocabulary
    width: int  # of its embeddings
    files: EncoderFiles
    note: Path  # named by what encoder and adapters held when they were opened
    device: torch.device = field(default_factory=partial(torch.device, "cpu"))
    opened: Opened = field(default_factory=dict)
    _made: TextEncoder | None = None
    _guard: Guard = field(default_factory=Guard)

    @classmethod
    def of(cls, files: EncoderFiles, adapter: Path, make: Callable[[], TextEncoder]) -> "Deferred | None":
        """For an encoder of which some form with these adapters was compiled; ``None`` for others."""
        try:
            note = read_object(place := views_note(files.digest, adapter))
        except OSError:  # a file of the adapters is missing; who loads them says so
            return None
        width = read_object(files.folder / "config.json").get("hidden_size")
        views = {view: str(note[view]) for view in map(str, _VIEWS) if view in note}
        if len(views) < len(_VIEWS) or files.max_length is None or type(width) is not int:
            return None
        for some, precision in itertools.product((_VIEWS[:1], _VIEWS[1:3], _VIEWS[1:]), get_args(Precision)):
            wanted = tuple(views[str(view)] for view in some)
            name = CompiledName(files.digest, wanted, normalise=True, precision=precision, pooling=files.pooling)
            with suppress(ModelFolderError):  # a damaged one is made again where it is to embed
                if (made := CompiledEncoder.from_cache(name)) is not None:
                    return cls(make, adapter, views, made.vocabulary, width, files, place)
        return None

    def check(self) -> Path:
        """The folder of the adapters; raises ModelFolderError if it, or the encoder, was changed meanwhile."""
        with suppress(OSError):
            if views_note(folder_digest(self.files.folder), self.adapter) == self.note:
                return self.adapter
        raise ModelFolderError(f"{self.adapter}, or its encoder, was changed since it was opened. Open it again.")

    def load(self) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
        """Transformer and tokenizer, once."""
        with self._guard:
            if self._made is None:
                self.check()
                self._made = self.make()
            return self._made.backbone, self._made.tokenizer


def note_views(encoder: TextEncoder, adapter: Path) -> None:
    """Remember what the views of ``encoder`` are called, which has just got the adapters in a folder.

    The note is a file of the user's cache that is named by the digests of encoder and adapters.
    """
    if encoder.files is None or runtime_version() is None:
        return
    note = views_note(encoder.files.digest, adapter)
    with suppress(NLPMetaError, OSError):  # a cache that cannot be written only costs time
        if set(map(str, _VIEWS)) - read_object(note).keys():  # none, or that of an older release
            write_json(note, {str(view): view_name(encoder, view) for view in _VIEWS})


def view_name(encoder: TextEncoder, view: float | None) -> str:
    """What a view of ``encoder`` is called in a ``CompiledName``, by the weights of its adapters and their scale."""
    scales = scales_with(encoder.backbone, view)
    name = digest_of(adapter_weights(encoder).items(), json.dumps(scales))[:32] if any(scales) else FROZEN_NAME
    return f"{name}{LOWER}" if view == INNER else name
