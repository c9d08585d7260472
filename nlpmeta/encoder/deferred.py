"""Loads an encoder with adapters when something needs its weights, which is never where a compiled form embeds."""

import itertools
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, get_args

import torch
from torch import nn

from nlpmeta.encoder.engines import FROZEN, CompiledEncoder, CompiledName, Precision, runtime_version
from nlpmeta.encoder.files import folder_digest, read_object, views_note
from nlpmeta.encoder.lora import adapter_weights
from nlpmeta.encoder.merged import INNER, scales_with
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.encoder.tokenizing import Guard
from nlpmeta.encoder.vocabulary import Vocabulary
from nlpmeta.encoder.weights import EncoderFiles
from nlpmeta.errors import ModelFolderError, NLPMetaError
from nlpmeta.storage.files import write_json
from nlpmeta.storage.tensors import digest_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

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
    name = digest_of(adapter_weights(encoder).items(), json.dumps(scales))[:32] if any(scales) else FROZEN
    return f"{name}, lower layers" if view == INNER else name
