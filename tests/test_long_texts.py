"""A text of any length is tokenized as if it had been read to its end."""

import random

import pytest
import torch
from conftest import make_encoder
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from nlpmeta.encoder import tokenizing
from nlpmeta.encoder.text_encoder import TextEncoder

LETTERS = "abcdefgh"


def unigram() -> TextEncoder:
    """The small encoder with pieces of one to four letters, whose best cut depends on the letters that follow."""
    random_ = random.Random(0)
    pieces = {"▁", *LETTERS} | {"".join(random_.choices(LETTERS, k=random_.randint(2, 4))) for _ in range(400)}
    scored = [("[UNK]", 0.0), *((piece, -5 - 3 * random_.random()) for piece in sorted(pieces))]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[UNK]", unk_token="[UNK]")
    return TextEncoder(make_encoder().backbone, fast, max_length=32)


def read_whole(encoder: TextEncoder, text: str) -> list[int]:
    return encoder.tokenizer(text.strip(), truncation=True, max_length=encoder.max_length)["input_ids"]


def long_text(kind: str, number: int) -> str:
    random_ = random.Random(f"{kind} {number}")
    letters = "".join(random_.choices(LETTERS, k=60_000))
    match kind:
        case "one word":
            return letters
        case "words":
            return "".join(each if random_.random() > 0.2 else " " for each in letters)
        case "blanks between two words":
            return letters[:5] + " " * 50_000 + letters[5:]
        case "unknown before known":
            return "日" * 30_000 + letters
        case _:
            return "aaab" * 15_000


KINDS = ["one word", "words", "blanks between two words", "unknown before known", "repeats"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_text_is_read_as_if_it_were_tokenized_whole(kind):
    encoder = unigram()
    for number in range(5):
        text = long_text(kind, number)
        assert encoder.tokenize(["abc", text, "a b"]) == [read_whole(encoder, each) for each in ("abc", text, "a b")]


def test_what_is_tokenized_of_a_long_text_does_not_grow_with_it(monkeypatch):
    encoder, seen, plain = make_encoder(), [], tokenizing._cut
    monkeypatch.setattr(tokenizing, "_cut", lambda t, texts, n: seen.extend(map(len, texts)) or plain(t, texts, n))
    ids = encoder.tokenize(["ball goal " * 1_500_000, "rice"])
    assert len(ids[0]) == encoder.max_length
    assert sum(seen) < 20_000
    assert torch.equal(encoder.encode(["ball goal " * 1_500_000]), encoder.encode(["ball goal " * 1000]))


def test_a_text_that_makes_no_tokens_is_read_up_to_a_bound(monkeypatch):
    encoder, seen, plain = make_encoder(), [], tokenizing._cut
    monkeypatch.setattr(tokenizing, "_cut", lambda t, texts, n: seen.extend(map(len, texts)) or plain(t, texts, n))
    encoder.tokenize(["ball" + "x" * 5_000_000])  # one word, of which the small tokenizer knows nothing
    assert max(seen) == tokenizing.MOST
