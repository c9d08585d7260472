"""A Hugging Face model folder: what it must hold, a digest that says which model it is, and how it is loaded.

Nothing of it is run, and nothing that is missing is made up.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nlpmeta.errors import ModelFolderError, NLPMetaError
from nlpmeta.progress import quiet_transformers
from nlpmeta.storage.files import inside, read_text, sha256, user_cache, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Pooling = Literal["mean", "cls", "last"]
"""How the vectors of a text's tokens become one: their mean, that of the first token, or that of the last."""
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
"""Of adapters, as PEFT writes them."""
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_FAST_TOKENIZER = "tokenizer.json"
_SLOW_TOKENIZERS = ("vocab.txt", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "vocab.json")
_POOLING = "1_Pooling/config.json"
"""What sentence-transformers writes beside a model."""
_WRITTEN_AS: dict[str, Pooling] = {
    **{"mean": "mean", "pooling_mode_mean_tokens": "mean", "cls": "cls", "pooling_mode_cls_token": "cls"},
    **{"lasttoken": "last", "pooling_mode_lasttoken": "last"},
}
_LONGEST_PREFIX = 1000  # characters
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_REMEMBERED = 1 << 20  # bytes; smaller files are read again every time
POOLED = ("bert", "roberta", "xlm-roberta", "camembert")
"""Families that have a pooler, which is no part of an embedding; many encoders ship without one."""
_MOST_LAYERS = 1000
_NO_LIMIT = 1_000_000  # tokens; transformers writes a huge number where a tokenizer knows no limit
_OFFSET_FAMILIES = ("roberta", "camembert", "xlm-roberta", "xlm-roberta-xl", "mpnet")  # position 0 is pad_token_id + 1


def missing_parts(folder: Path) -> list[str]:
    """The parts that ``folder`` lacks, in words; empty if configuration, weights and tokenizer are there."""
    missing = []
    if not (folder / "config.json").is_file():
        missing.append("config.json")
    weights = weight_files(folder)
    if not weights:
        pickled = next((name for name in _PICKLES if (folder / name).is_file()), None)
        missing.append(_WHOLE + (f" (there is only {pickled}, a pickle, which is never loaded)" if pickled else ""))
    missing += [name for name in weights if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in (_FAST_TOKENIZER, *_SLOW_TOKENIZERS)):
        missing.append(_FAST_TOKENIZER)
    return missing


def weight_files(folder: Path) -> list[str]:
    """Names of the safetensors files that hold the weights: one, or the shards that the index lists."""
    if (folder / _WHOLE).is_file():
        return [_WHOLE]
    index = read_object(folder / _INDEX).get("weight_map")
    return sorted({str(name) for name in index.values()}) if isinstance(index, dict) else []


def check_sizes(folder: Path) -> None:
    """See that the sizes in ``config.json`` can be those of the weights, before memory is taken for them.

    Raises:
        ModelFolderError: if the configuration asks for more than the weights have, or for code of the Hub.
    """
    config = read_object(folder / "config.json")
    if any("/" in str(config.get(key)) for key in ("_attn_implementation", "attn_implementation")):
        raise ModelFolderError(f"{folder / 'config.json'} requests code from the Hub, which is never executed.")
    room = sum((folder / name).stat().st_size for name in weight_files(folder))  # a weight has a byte at least
    width, depth = config.get("hidden_size", 1), config.get("num_hidden_layers", 1)
    products = [("hidden_size", "vocab_size"), ("hidden_size", "max_position_embeddings")]
    products += [
        ("hidden_size", "type_vocab_size"),
        ("hidden_size", "hidden_size"),
        ("hidden_size", "intermediate_size"),
    ]
    numbers = {name: config.get(name, 1) for pair in products for name in pair}
    whole = [value for value in [*numbers.values(), depth] if type(value) is int and value > 0]
    if len(whole) < len(numbers) + 1 or type(width) is not int or type(depth) is not int or depth > _MOST_LAYERS:
        raise ModelFolderError(f"{folder / 'config.json'} is damaged: one of its sizes is not a valid size.")
    largest = max(int(str(numbers[a])) * int(str(numbers[b])) for a, b in products)
    if max(largest, width * depth) > room:
        raise ModelFolderError(f"{folder / 'config.json'} does not fit the weights beside it, which are far smaller.")


def is_model_file(name: str) -> bool:
    """Whether a file of a Hub repository is needed: of the top folder, or how it pools; no pickles or other formats."""
    if name == _POOLING:
        return True
    if "/" in name or name.startswith("."):
        return False
    if name.endswith(".safetensors"):
        return name == _WHOLE or (name.startswith("model-") and "-of-" in name)
    return name.endswith((".json", ".model", ".txt"))


def folder_digest(folder: Path, known: Mapping[str, str] | None = None) -> str:
    """SHA-256 over name and SHA-256 of configuration, weights and tokenizer: the same for every copy of a model.

    ``known`` holds digests of files that were checked already. Digests of large files are remembered in the user's
    cache, see ``file_digest``.
    """
    fast = (folder / _FAST_TOKENIZER).is_file()  # the slow files beside it are not read
    tokenizer = [_FAST_TOKENIZER] if fast else [name for name in _SLOW_TOKENIZERS if (folder / name).is_file()]
    digest = hashlib.sha256()
    for name in sorted(["config.json", *weight_files(folder), *tokenizer]):
        content = (known or {}).get(name) or file_digest(folder / name)
        digest.update(f"{name} {content}\n".encode())
    return digest.hexdigest()


def max_length(folder: Path) -> int | None:
    """The longest text in tokens, special ones included, or None if the folder does not say."""
    config = read_object(folder / "config.json")
    positions = config.get("max_position_embeddings")
    pad = config.get("pad_token_id")
    if isinstance(positions, int) and isinstance(pad, int) and config.get("model_type") in _OFFSET_FAMILIES:
        positions -= pad + 1
    limits = (positions, read_object(folder / "tokenizer_config.json").get("model_max_length"))
    sensible = [limit for limit in limits if type(limit) is int and 2 < limit < _NO_LIMIT]
    return min(sensible, default=None)


def pooling_of(folder: Path) -> Pooling:
    """How a model pools: as sentence-transformers wrote beside it, or else as its kind wants it.

    A decoder, which reads from left to right, has read the whole text at the last token only; of any other the mean
    is taken.
    """
    written = read_object(inside(folder, _POOLING))
    on = {str(written.get("pooling_mode")), *(key for key, value in written.items() if value is True)}
    found = {_WRITTEN_AS[key] for key in on if key in _WRITTEN_AS}
    if len(found) == 1:
        return found.pop()
    return "last" if is_decoder(read_object(folder / "config.json").get("model_type")) else "mean"


def is_decoder(kind: object) -> bool:
    """Whether models of this kind read from left to right and can do nothing else."""
    if kind in POOLED or not isinstance(kind, str):
        return False
    from transformers.models.auto import modeling_auto as known

    return kind in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES


def written_prefix(folder: Path) -> str:
    """What sentence-transformers puts before a text to classify, or before every text; empty if nothing is written."""
    written = read_object(folder / "config_sentence_transformers.json")
    prompts = written.get("prompts")
    for name in ("classification", "Classification", written.get("default_prompt_name")):
        prompt = prompts.get(name) if isinstance(prompts, dict) and isinstance(name, str) else None
        if isinstance(prompt, str) and len(prompt) <= _LONGEST_PREFIX:
            return prompt
    return ""


def file_digest(path: Path) -> str:
    """The SHA-256 digest of a file; of a large one it is computed once for each version of the file.

    A version is identified by place, inode, size and times of change, and remembered in the user's cache; a cache
    that cannot be written only costs time.

    Raises:
        OSError: if there is no such file, or it cannot be read.
    """
    real = path.resolve()
    facts = real.stat()
    if facts.st_size < _REMEMBERED:
        return sha256(real)
    note = user_cache() / "digests" / f"{hashlib.sha256(str(real).encode()).hexdigest()[:32]}.json"
    state = {
        **{"path": str(real), "size": facts.st_size, "inode": facts.st_ino},
        **{"mtime_ns": facts.st_mtime_ns, "ctime_ns": facts.st_ctime_ns},
    }
    remembered = read_object(note)
    if {key: remembered.get(key) for key in state} == state and isinstance(remembered.get("sha256"), str):
        return str(remembered["sha256"])
    content = sha256(real)
    try:
        write_json(note, {**state, "sha256": content})
    except (NLPMetaError, OSError):
        pass  # a cache that cannot be written only costs time
    return content


def views_note(encoder: str, adapter: Path) -> Path:
    """The file of the cache for what the views of an encoder with this digest and these adapters are called.

    Raises:
        OSError: if a file of the adapters is missing.
    """
    parts = [encoder, *(file_digest(adapter / name) for name in (CONFIG_FILE, WEIGHTS_FILE))]
    return user_cache() / "views" / f"{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:32]}.json"


def read_object(path: Path) -> dict[str, object]:
    """The JSON object in ``path``; empty if there is none."""
    try:
        value = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def load_folder(folder: Path) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The transformer and the tokenizer of a model folder, on the CPU and in float32.

    Raises:
        ModelFolderError: if the folder is damaged.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    check_sizes(folder)
    options = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
    with torch.device("cpu"), quiet_transformers(), _said_plainly(folder):
        backbone, found = AutoModel.from_pretrained(folder, **options, **_no_pooler(folder), output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    _check_weights(folder, found)
    if is_decoder(backbone.config.model_type):
        backbone.config.use_cache = False  # keys and values of each layer, to generate with, which nobody here does
    return backbone, tokenizer


def linear_layers(backbone: "PreTrainedModel") -> list[str]:
    """The paths of the linear layers within the layers of a transformer that was loaded."""
    from torch import nn

    depth, every = int(backbone.config.num_hidden_layers), dict(backbone.named_modules())
    lists = tuple(f"{path}." for path, each in every.items() if isinstance(each, nn.ModuleList) and len(each) == depth)
    return [path for path, each in every.items() if isinstance(each, nn.Linear) and path.startswith(lists)]


def last_names(paths: Sequence[str]) -> list[str]:
    """The distinct names at the ends of paths, by name."""
    return sorted({path.rpartition(".")[2] for path in paths})


@contextmanager
def _said_plainly(folder: Path) -> Iterator[None]:
    """Turn whatever a folder that is no encoder makes the libraries raise into one sentence."""
    try:
        yield
    except BaseException as error:
        # The tokenizers library panics on some files, with an exception that is not an Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelFolderError(f"The encoder in {folder} cannot be loaded: {reason}") from error


def _check_weights(folder: Path, found: Mapping[str, object]) -> None:
    """See that every weight came from the folder: transformers makes up what is missing or of another shape.

    Raises:
        ModelFolderError: naming the first that did not.
    """
    odd = [*(found.get("missing_keys") or ()), *(found.get("mismatched_keys") or ())]  # type: ignore[misc]
    names = sorted(str(each[0] if isinstance(each, tuple) else each) for each in odd)
    names = [name for name in names if not name.startswith("pooler.")]
    if names:
        raise ModelFolderError(
            f"The weights in {folder} do not fit its config.json; {len(names)} are missing or of another shape, "
            f"such as {names[0]}."
        )


def _no_pooler(folder: Path) -> dict[str, bool]:
    """BERT's pooler is not part of the embedding and many encoders ship without one."""
    return {"add_pooling_layer": False} if read_object(folder / "config.json").get("model_type") in POOLED else {}
