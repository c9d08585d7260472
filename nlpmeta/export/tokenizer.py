"""The tokenizer of an exported model: what we do to a text before it (strip, prefix, cut) becomes part of it."""

import copy
from typing import TYPE_CHECKING

from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import NLPMetaError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def whole_tokenizer(encoder: TextEncoder) -> "PreTrainedTokenizerBase":
    """A copy of the tokenizer that strips a text and puts the prefix of the encoder before it.

    Raises:
        NLPMetaError: if it is not a fast one, which cannot be changed so.
    """
    from tokenizers import normalizers

    if not encoder.tokenizer.is_fast:
        raise NLPMetaError("Only encoders with a fast tokenizer (tokenizer.json) can be exported.")
    tokenizer = copy.deepcopy(encoder.tokenizer)
    inner = tokenizer.backend_tokenizer
    steps: list[normalizers.Normalizer] = [normalizers.Strip()]
    if encoder.prefix:
        steps.append(normalizers.Prepend(encoder.prefix))
    if inner.normalizer is not None:
        steps.append(inner.normalizer)
    inner.normalizer = normalizers.Sequence(steps)
    tokenizer.model_max_length = encoder.max_length
    return tokenizer


def end_tokens(encoder: TextEncoder) -> int:
    """How many special tokens a text ends with."""
    marks = encoder.tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
    return len(marks) - max((place + 1 for place, mark in enumerate(marks) if not mark), default=0)
