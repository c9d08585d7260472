"""Texts to token ids, by any number of threads, at a cost that does not grow with what is beyond the cut."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nlpmeta.encoder.guard import Guard

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import BatchEncoding, PreTrainedTokenizerBase

WIDTH = 8192
"""Characters of a text that are tokenized at first; twice as many, and so on, while they do not make enough tokens."""
MOST = 1 << 20
"""Characters that are read of a text at most: so far come only texts whose first million makes fewer tokens than fit in
the encoder, such as a million line breaks."""
_BEYOND = 256
"""Tokens that must follow those that are kept before what comes after them is left out: more than a word can have."""
_guard = Guard()  # a fast tokenizer keeps in itself where it cuts


def token_ids(
    tokenizer: "PreTrainedTokenizerBase",
    texts: Sequence[str],
    *,
    max_length: int,
    on_cut: Callable[[int], object] | None = None,
) -> list[list[int]]:
    """The ids of each text, special tokens included, cut to ``max_length``.

    A text of many megabytes costs what its beginning does: a tokenizer works word by word, so that what comes hundreds
    of tokens after the cut does not change what comes before it. ``on_cut`` hears of the number of every text that is
    cut.
    """
    found: list[list[int]] = []
    width = WIDTH if tokenizer.is_fast and tokenizer.truncation_side == "right" else None
    batch = _cut(tokenizer, [text[:width] for text in texts], max_length)
    for row, text in enumerate(texts):
        ids, read = batch, width
        place = row
        while read is not None and read < min(len(text), MOST) and not _is_enough(ids.encodings[place]):  # type: ignore[index]
            read, place = 2 * read, 0
            ids = _cut(tokenizer, [text[:read]], max_length)
        found.append(ids["input_ids"][place])
        if on_cut is not None:
            whole = read is None or read >= len(text)
            if not whole or (len(found[-1]) >= max_length and _loses(tokenizer, ids, place, text)):
                on_cut(row)
    return found


def _cut(tokenizer: "PreTrainedTokenizerBase", texts: list[str], max_length: int) -> "BatchEncoding":
    with _guard:
        batch: BatchEncoding = tokenizer(texts, truncation=True, max_length=max_length, return_attention_mask=False)
    return batch


def _loses(tokenizer: "PreTrainedTokenizerBase", batch: "BatchEncoding", place: int, text: str) -> bool:
    """Whether a text that was read whole makes more tokens than were kept."""
    if batch.encodings is not None:
        return bool(batch.encodings[place].overflowing)
    with _guard:  # a tokenizer in Python keeps nothing of what it cut off
        return len(tokenizer(text)["input_ids"]) > len(batch["input_ids"][place])


def _is_enough(encoding: "Encoding") -> bool:
    """Whether so many tokens were cut off that more text could not change those that were kept."""
    return sum(len(part.ids) for part in encoding.overflowing) >= _BEYOND
