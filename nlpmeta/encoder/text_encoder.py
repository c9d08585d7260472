"""Texts to vectors: any Hugging Face encoder, its tokens pooled, unit length."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from nlpmeta.data.inputs import BETWEEN, holds_pairs
from nlpmeta.encoder.device import (
    Device,
    FrozenLayers,
    Later,
    LoadedLate,
    embed_in_batches,
    pass_cost,
    precision,
    resolve_device,
    tokens_at_once,
)
from nlpmeta.encoder.engines import embed_by
from nlpmeta.encoder.files import Pooling, load_folder
from nlpmeta.encoder.graphs import padded, pooled
from nlpmeta.encoder.merged import merged_backbone, with_attention, with_weights
from nlpmeta.encoder.parts import BREAK, Windows, checked_reading, halves_of, paired, view_width, weights_of
from nlpmeta.encoder.tokenizing import BATCH_TOKENS, collected_cuts, token_ids
from nlpmeta.encoder.weights import DEFAULT_ENCODER, EncoderFiles, check_numbers, resolve
from nlpmeta.errors import DataError
from nlpmeta.progress import Advance, track

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Tokens = list[list[int]]
MAX_LENGTH = 128
"""Default maximum length in tokens: room for a paragraph, at a cost that stays small."""


class TextEncoder(LoadedLate):
    """A pretrained transformer that is frozen unless adapters are added; what it returns are embeddings ``(n, dim)``.

    Pooling is what the model was trained with, for E5 the mean over all tokens (Wang et al. 2024, arXiv:2402.05672).
    """

    pairs: bool = False
    """Whether what it embeds are pairs of texts (``data.inputs.Pair``); see ``of_pairs``."""
    as_loaded: bool = True
    """Whether its files and adapters say what its weights are: not of a copy with the adapters merged in."""
    beside: int | None = None
    """The layer that is pooled too; its embeddings stand beside those of the last one."""

    def __init__(
        self,
        backbone: "PreTrainedModel | Later",
        tokenizer: "PreTrainedTokenizerBase | None",
        *,
        prefix: str = "",
        max_length: int = MAX_LENGTH,
        window: int | None = None,
        normalise: bool = True,
        pooling: Pooling = "mean",
        files: EncoderFiles | None = None,
    ) -> None:
        """Wrap a loaded model; ``from_pretrained`` is the usual way in.

        Args:
            backbone: any encoder whose output has ``last_hidden_state``, or one that is loaded when it is needed.
            tokenizer: its tokenizer; ``None`` if that is loaded with it.
            prefix: what is put before every text, as in the model's training (E5: ``"query: "``).
            max_length: tokens kept of each text, special ones included.
            window: tokens that go through at once: a longer text is read in overlapping windows whose embeddings are
                averaged. By default ``max_length``, or what the model can take if that is less.
            normalise: scale embeddings to unit length.
            pooling: ``mean``, ``cls`` (the first token) or ``last``.
            files: where the weights came from.

        Raises:
            NLPMetaError: if ``max_length`` or ``window`` leave no room for a text or exceed what can be read.
        """
        super().__init__()
        self.later, self.prefix, self.files = (backbone if isinstance(backbone, Later) else None), prefix, files
        if not isinstance(backbone, Later):
            self.backbone, self.tokenizer = backbone.requires_grad_(False), tokenizer  # type: ignore[assignment]
        self.train(False)
        self.normalise, self.pooling = normalise, pooling
        self.max_length, self.window = checked_reading(max_length, window, self.most_tokens)
        self.windows = Windows.of(self.tokenizer, prefix, self.window) if self.max_length > self.window else None
        self.trained: dict[str, Any] | None = None  # what is known of how its adapters were trained
        self.frozen_layers: FrozenLayers | None = None  # set by frozen_layers.frozen_layer_cache for a block
        self.dim = self.width = backbone.width if isinstance(backbone, Later) else int(backbone.config.hidden_size)

    @classmethod
    def from_pretrained(
        cls,
        name: str = DEFAULT_ENCODER,
        *,
        revision: str | None = None,
        prefix: str | None = None,
        max_length: int | None = None,
        window: int | None = None,
        normalise: bool = True,
        pooling: Pooling | None = None,
        device: Device = "auto",
    ) -> "TextEncoder":
        """Load an encoder from a folder, the Hub's cache, the packaged weights, or the Hub, in this order.

        Args:
            name: a folder or a Hub id, with options where it has some (``user/model?pooling=cls``).
            revision: a branch, tag or commit of the Hub.
            prefix: overrides the one that the model was trained with.
            max_length: tokens kept of each text; by default ``MAX_LENGTH``, or what the encoder takes if that is less.
            window: tokens that go through at once, as in the constructor.
            normalise: scale embeddings to unit length.
            pooling: overrides what sentence-transformers wrote beside the model or, without that, its kind wants.
            device: where it runs: ``auto`` (CUDA, MPS, XPU, else the CPU; or what ``NLPMETA_DEVICE`` names), or one of
                them by its name.

        Raises:
            NLPMetaError: if there is no such device, or so many tokens cannot be read.
            NetworkError: if it is not on disk and the Hub cannot be reached.
            ModelFolderError: if a folder is incomplete or damaged.
        """
        place = resolve_device(device)
        files = resolve(name, revision=revision)
        backbone, tokenizer = load_folder(files.folder)
        limit = getattr(backbone.config, "max_position_embeddings", MAX_LENGTH)
        loaded = cls(
            backbone,
            tokenizer,
            prefix=files.prefix if prefix is None else prefix,
            max_length=min(MAX_LENGTH, limit) if max_length is None else max_length,
            window=window,
            normalise=normalise,
            pooling=files.pooling if pooling is None else pooling,
            files=files,
        )
        loaded.to(place).encode(["a"])  # what gives no numbers is found here, and not in the first prediction
        return loaded

    @property
    def most_tokens(self) -> int | None:
        """The tokens, special ones included, that could go through at once; ``None`` if it does not say."""
        if self.files is not None and self.files.max_length is not None:
            return self.files.max_length
        most = getattr(self.backbone.config, "max_position_embeddings", None)
        return most if isinstance(most, int) else None

    @property
    def pass_cost(self) -> int:
        """What one more pass costs, in tokens."""
        return pass_cost(self.device)

    def reading(self, max_length: int, window: int | None = None) -> "TextEncoder":
        """The same encoder, weights shared, that reads so many tokens of a text, in windows where ``window`` is less.

        Raises:
            NLPMetaError: as the constructor.
        """
        twin = self._twin()
        twin.max_length, twin.window = checked_reading(max_length, window, self.most_tokens)
        cut = twin.max_length > twin.window
        twin.windows = Windows.of(self.tokenizer, self.prefix, twin.window) if cut else None
        return twin

    def of_pairs(self, pairs: bool = True) -> "TextEncoder":
        """The same encoder, weights shared, that embeds pairs of texts (or, with ``False``, the texts of pairs)."""
        twin, width = self._twin(), self.width
        twin.pairs, twin.dim = pairs, self.dim // view_width(width, self.pairs) * view_width(width, pairs)
        return twin if pairs != self.pairs else self

    def _twin(self) -> "TextEncoder":
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    @property
    def mask_token(self) -> str | None:
        """What stands for a masked word in a text, if the tokenizer has such a token."""
        return cast("str | None", self.tokenizer.mask_token)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """The token ids of each text, prefix and special tokens included, cut to ``max_length``."""
        if holds_pairs(texts) and not self.pairs:
            raise DataError("Pairs of texts go to FewShotClassifier or nlpmeta adapt; here single texts are read.")
        # White space at the end would become a token of its own, and move the embedding, in some tokenizers.
        parts = [part.strip() for text in texts for part in text.partition(BETWEEN)[::2]] if self.pairs else texts
        prefixed, cut = [self.prefix + part.strip() for part in parts], collected_cuts()
        note = None if cut is None else lambda row: cut.add(texts[row // 2 if self.pairs else row])
        read = partial(token_ids, self.tokenizer) if (later := self.pending) is None else later.vocabulary.ids
        ids = read(prefixed, max_length=self.max_length, on_cut=note)
        return [[*one, BREAK, *other] for one, other in zip(ids[::2], ids[1::2], strict=True)] if self.pairs else ids

    def forward(self, texts: Sequence[str], adapter: Mapping[str, Tensor] | None = None) -> Tensor:
        """Embeddings ``(len(texts), dim)``, with ``adapter`` in place of the stored weights of the same names."""
        return self.embed_tokens(self.tokenize(texts), adapter=adapter)

    def embed_tokens(
        self,
        tokens: Tokens,
        *,
        adapter: Mapping[str, Tensor] | None = None,
        adapter_of: Tensor | None = None,
        batch_tokens: int | None = None,
        advance: Advance | None = None,
    ) -> Tensor:
        """``forward`` for texts that are tokens already; ``advance`` is called after every batch.

        With ``adapter_of`` ``(n,)`` the weights in ``adapter`` are stacked, ``(n_adapters, ...)``, and it says which of
        them each text is embedded with. Without ``batch_tokens`` a batch is as large as suits the device.
        """
        if not tokens:
            return torch.empty(0, self.dim, device=self.device)
        if self.pairs:
            owners = None if adapter_of is None else adapter_of.repeat_interleave(2)
            each = self.of_pairs(False).embed_tokens(
                halves_of(tokens), adapter=adapter, adapter_of=owners, batch_tokens=batch_tokens, advance=advance
            )
            return paired(each, n_views=1 if self.beside is None else 2)
        if (split := None if self.windows is None else self.windows.split(tokens)) is not None:
            owners = None if adapter_of is None else adapter_of[torch.tensor(split.owners, device=adapter_of.device)]
            step = split.advance(advance)
            each = self.embed_tokens(
                split.tokens, adapter=adapter, adapter_of=owners, batch_tokens=batch_tokens, advance=step
            )
            return split.pooled(each, normalise=self.normalise, n_views=1 if self.beside is None else 2)
        usual = BATCH_TOKENS if torch.is_grad_enabled() else tokens_at_once(self)
        return embed_in_batches(
            [len(ids) for ids in tokens],
            lambda rows: self.embed_batch([tokens[row] for row in rows], weights_of(adapter, adapter_of, rows)),
            batch_tokens=usual if batch_tokens is None else batch_tokens,
            pass_cost=self.pass_cost,
            advance=advance,
        )

    def merged(self, scale: float | None = None) -> "TextEncoder":
        """The same encoder to embed with only: its adapters are part of the weights, which it shares with all threads.

        Args:
            scale: of the adapters, 0 for the frozen encoder; ``INNER`` for the lower layers; ``None`` as they are.
        """
        backbone = merged_backbone(self.backbone, scale)
        if backbone is self.backbone:
            return self
        twin = self._on(backbone)
        twin.training, twin.dim = False, view_width(self.width, self.pairs)
        return twin

    def differentiable_twice(self) -> "TextEncoder":
        """The same encoder, weights shared, with an attention that has a second derivative: the fused one has none."""
        return self._on(with_attention(self.backbone, "eager"))

    def _on(self, backbone: nn.Module) -> "TextEncoder":
        twin = object.__new__(TextEncoder)
        twin.__dict__.update(self.__dict__, _modules={"backbone": backbone}, tokenizer=self.tokenizer)
        twin.as_loaded, twin.later = False, None
        if self.frozen_layers is not None:
            twin.frozen_layers = self.frozen_layers.on(backbone)
        return twin

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], *, show_progress: bool = False) -> Tensor:
        """Embeddings ``(len(texts), dim)`` without gradients, each distinct text computed once.

        Within ``compiling.embedding_with`` by the engine that it names, elsewhere by PyTorch.
        """
        distinct, embed = list(dict.fromkeys(texts)), embed_by.get()
        with track("Encoding", len(distinct)) if show_progress else nullcontext() as advance:
            tokens = self.tokenize(distinct)
            found = None if embed is None or not tokens else embed(self, tokens, advance)
            vectors = self.merged().embed_tokens(tokens, advance=advance) if found is None else found
        check_numbers(vectors, self.files)
        row = {text: i for i, text in enumerate(distinct)}
        return vectors[torch.tensor([row[text] for text in texts], dtype=torch.long, device=vectors.device)].clone()

    def embed_batch(self, tokens: Tokens, adapter: Mapping[str, Tensor] | None = None) -> Tensor:
        """Embeddings ``(n, dim)`` of texts that go through together, padded to the longest."""
        ids, mask = self.pad(tokens)
        if self.frozen_layers is not None:
            hidden = [self.frozen_layers.hidden(tokens, mask, adapter)]
        else:
            # A batch without padding goes without a mask: the same numbers, and attention takes its fast path.
            inputs = {"input_ids": ids, "attention_mask": None if mask.all() else mask}
            backbone = with_weights(self.backbone, adapter) if adapter else self.backbone
            with precision(self):
                found = backbone(**inputs, output_hidden_states=self.beside is not None)
            hidden = [found.last_hidden_state] + ([] if self.beside is None else [found.hidden_states[self.beside]])
        if not self.training:  # what was computed in half precision is pooled and compared in float32
            hidden = [each.to(torch.promote_types(each.dtype, torch.float32)) for each in hidden]
        return torch.cat([pooled(each, mask, self.pooling, normalise=self.normalise) for each in hidden], dim=1)

    def pad(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Token ids and mask, both ``(n, longest)``."""
        known = int(self.backbone.get_input_embeddings().num_embeddings)  # type: ignore[arg-type]
        return padded(tokens, self.tokenizer.pad_token_id or 0, n_known=known, device=self.device)

    def __sklearn_clone__(self) -> "TextEncoder":
        """Scikit-learn's ``clone`` shares the encoder instead of copying hundreds of megabytes."""
        return self
