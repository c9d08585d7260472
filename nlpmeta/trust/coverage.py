"""How well the tokenizer of an encoder knows the writing and the words of some texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder


@dataclass(frozen=True)
class TokenizerCoverage:
    """What the pieces of the tokenizer make of the letters and digits of some texts.

    ``unknown`` is the share of letters and digits that are in no known piece; ``letters_per_piece`` is how many of the
    known ones a piece holds on average: near 1, words are spelt out letter by letter.
    """

    unknown: float
    letters_per_piece: float


def tokenizer_coverage(encoder: "TextEncoder", texts: Sequence[str]) -> TokenizerCoverage | None:
    """The coverage of ``texts`` themselves; ``None`` for a tokenizer that does not say where its pieces come from."""
    tokenizer = encoder.tokenizer
    if not tokenizer.is_fast:
        return None
    stripped = [text.strip() for text in texts]
    batch = tokenizer(stripped, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False)
    letters = unknown = pieces = 0
    for text, ids, spans in zip(stripped, batch["input_ids"], batch["offset_mapping"], strict=True):
        for token, (start, end) in zip(ids, spans, strict=True):
            found = sum(character.isalnum() for character in text[start:end])
            letters += found
            if token == tokenizer.unk_token_id:
                unknown += found
            elif found:
                pieces += 1
    return TokenizerCoverage(unknown / max(letters, 1), (letters - unknown) / max(pieces, 1))
