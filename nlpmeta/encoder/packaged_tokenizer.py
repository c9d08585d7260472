"""The tokenizer of the packaged encoder as the JSON files that ``tokenizers`` and ``transformers`` read."""

from base64 import b64encode

from nlpmeta.encoder.charsmap import charsmap
from nlpmeta.encoder.e5s1 import Vocabulary

_WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"
_MASK = "<mask>"


def tokenizer_json(vocabulary: Vocabulary) -> dict[str, object]:
    """The document ``tokenizer.json``: NFC, the replacements of the data file, one space for many, then Unigram.

    The data file holds replacements of single code points only. The canonical compositions that the original map had
    come back as NFC, which is the identity on composed text and gives canonically equivalent texts equal tokens (the
    original map, run by ``tokenizers``, loses the second mark of a decomposed letter).
    """
    bos, eos = vocabulary.pieces[vocabulary.bos], vocabulary.pieces[vocabulary.eos]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(token, vocabulary.pieces[token]) for token in _special(vocabulary)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "NFC"},
                {
                    "type": "Precompiled",
                    "precompiled_charsmap": b64encode(charsmap(vocabulary.replacements)).decode(),
                },
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            ],
        },
        "pre_tokenizer": _metaspace(),
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [_template(bos), _template("A"), _template(eos)],
            "pair": [_template(part) for part in (bos, "A", eos, eos, "B", eos)],
            "special_tokens": {
                piece: {"id": piece, "ids": [token], "tokens": [piece]}
                for piece, token in ((bos, vocabulary.bos), (eos, vocabulary.eos))
            },
        },
        "decoder": _metaspace(),
        "model": {
            "type": "Unigram",
            "unk_id": vocabulary.unk,
            "vocab": list(zip(vocabulary.pieces, vocabulary.scores, strict=True)),
            "byte_fallback": False,
        },
    }


def tokenizer_config(vocabulary: Vocabulary, max_length: int) -> dict[str, object]:
    """The document ``tokenizer_config.json``; ``max_length`` is in tokens, the two special ones included."""
    bos, eos, pad, unk = (
        vocabulary.pieces[token] for token in (vocabulary.bos, vocabulary.eos, vocabulary.pad, vocabulary.unk)
    )
    mask = {"mask_token": _MASK} if _MASK in vocabulary.pieces else {}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",  # XLMRobertaTokenizer would build its own pre-tokenizer
        "model_max_length": max_length,
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
        **{"bos_token": bos, "eos_token": eos, "cls_token": bos, "sep_token": eos, "pad_token": pad, "unk_token": unk},
        **mask,
    }


def _special(vocabulary: Vocabulary) -> list[int]:
    mask = [vocabulary.pieces.index(_MASK)] if _MASK in vocabulary.pieces else []
    return sorted({vocabulary.bos, vocabulary.pad, vocabulary.eos, vocabulary.unk, *mask})


def _added(token: int, piece: str) -> dict[str, object]:
    return {
        "id": token,
        "content": piece,
        "single_word": False,
        "lstrip": piece == _MASK,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _metaspace() -> dict[str, object]:
    return {"type": "Metaspace", "replacement": _WORD_START, "prepend_scheme": "always", "split": True}


def _template(part: str) -> dict[str, object]:
    kind = "Sequence" if part in ("A", "B") else "SpecialToken"
    return {kind: {"id": part, "type_id": 0}}
