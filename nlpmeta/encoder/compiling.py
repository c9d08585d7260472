"""Compiles an encoder: one graph with adapters, pooling and scaling in it, compared with PyTorch before it is kept."""

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from nlpmeta.encoder.engines import (
    FACTS,
    GRAPH,
    CompiledEncoder,
    CompiledName,
    Engine,
    Precision,
    check_packages,
    embed_by,
    precision_of,
    runtime_version,
    session,
)
from nlpmeta.encoder.graphs import Embedder, write_graph
from nlpmeta.encoder.merged import merged_backbone, with_attention
from nlpmeta.encoder.parts import ReadsMore, halves_of, paired
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.encoder.tokenizing import Guard
from nlpmeta.encoder.views import Deferred, Opened, view_name
from nlpmeta.encoder.vocabulary import check_same_ids, write_vocabulary
from nlpmeta.errors import DataWarning, ModelFolderError, NLPMetaError, WorkFailedError
from nlpmeta.progress import Advance
from nlpmeta.storage.files import read_text, remove_file, sha256, write_json
from nlpmeta.storage.folders import cached_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

SAME = 1e-4
"""What a number of a float32 embedding may differ by from PyTorch's."""
MOST_CHANGED = 0.05
"""The share of predictions that int8 may change."""


def script_sentences() -> list[list[str]]:
    """Four things to say, a row for each of over twenty languages, each in a script of its own or in Latin letters."""
    return [line.split("\t")[1:] for line in read_text(Path(__file__).parent / "scripts.tsv").splitlines() if line]


def typical_tokens(encoder: ReadsMore) -> list[list[int]]:
    """The tokens of ``script_sentences`` and of longer texts made of them, cut to what goes through at once."""
    sentences = [each for row in script_sentences() for each in row]
    texts = [*sentences, *(" ".join(sentences[i : i + 40]) for i in range(0, 80, 10))]
    return encoder.reading(encoder.window).tokenize(texts)


@dataclass(frozen=True)
class Agreement:
    """How a compiled encoder compares with PyTorch on sentences in over twenty scripts.

    Args:
        apart: the largest difference of a number of an embedding.
        cosine: the mean cosine between the embeddings of a text.
        changed: the share of texts that are classified otherwise.
        texts: how many texts there are.
    """

    apart: float
    cosine: float
    changed: float
    texts: int

    @classmethod
    def between(cls, ours: "NDArray[np.float32]", theirs: "NDArray[np.float32]") -> "Agreement":
        """Compare embeddings ``(n, dim)`` of ``script_sentences`` and of what texts follow them.

        The sentences say four things in each language. One is classified by the nearest mean over half the languages.
        """
        n_way, n = len(script_sentences()[0]), sum(map(len, script_sentences()))
        labels = np.arange(n) % n_way
        one, other = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (ours, theirs))
        changed = _classified(one[:n], labels) != _classified(other[:n], labels)
        cosine = float((one * other).sum(1).mean())
        return cls(float(np.abs(ours - theirs).max()), cosine, float(changed.mean()), n)


def _classified(vectors: "NDArray[np.float32]", labels: "NDArray[np.int64]") -> "NDArray[np.int64]":
    n_way = int(labels.max()) + 1
    known = (np.arange(len(labels)) // n_way) % 2 == 0
    means = np.stack([vectors[known & (labels == label)].mean(0) for label in range(n_way)])
    found: NDArray[np.int64] = (vectors @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(1)
    return found


def compiled_name(encoder: TextEncoder, precision: Precision) -> CompiledName | None:
    """What the compiled form of ``encoder``, as it is now, is called; ``None`` if it cannot have one.

    An encoder that was built in memory has none: nothing says which weights it has.
    """
    if encoder.files is None or not encoder.as_loaded or runtime_version() is None:
        return None
    later = encoder.pending
    known = later.views if isinstance(later, Deferred) else {}
    views = tuple(known[str(scale)] if known else view_name(encoder, scale) for scale in _scales(encoder))
    return CompiledName(encoder.files.digest, views, encoder.normalise, precision, pooling=encoder.pooling)


def compile_encoder(encoder: TextEncoder, precision: Precision) -> Agreement:
    """Compile ``encoder``, as it is now, into the user's cache; what is sound there under its name is left.

    Another process that does the same at the same time does no harm: each folder appears as a whole.

    Raises:
        NLPMetaError: if a package is missing, or the encoder was built in memory.
        ModelFolderError: if its tokenizer is not a fast one.
        WorkFailedError: if the result differs too much from PyTorch, or the cache cannot be written.
    """
    check_packages()
    if (name := compiled_name(encoder, precision)) is None:
        raise NLPMetaError("This encoder was built in memory; only one that was loaded can be compiled.")
    encoder = encoder.of_pairs(False)  # a pair is made of the embeddings of its texts
    with cached_folder(name.folder, partial(CompiledEncoder.is_sound, name)) as work:
        _write(encoder, precision, work)
        write_vocabulary(encoder.tokenizer, work)
        blank = encoder.tokenizer.pad_token_id or 0
        made = CompiledEncoder(work, {"blank": blank})
        check_same_ids(made.vocabulary, encoder, [each for row in script_sentences() for each in row])
        agreement = _agreement(encoder.reading(encoder.window), made, precision)
        files = {file.name: sha256(file) for file in sorted(work.iterdir())}
        write_json(work / FACTS, {"name": name.json(), "blank": blank, "files": files})
    return agreement


def opened(encoder: TextEncoder, precision: Precision, *, make: bool) -> CompiledEncoder | None:
    """The compiled form of ``encoder``; ``None`` if there is none and none can be made.

    One that is damaged or of another format is made again, and a warning says so.

    Args:
        encoder: as it is now.
        precision: of the weights.
        make: whether to compile it where there is none.

    Raises:
        NLPMetaError: as ``compile_encoder``, but for a cache that cannot be written: a warning says that.
    """
    name = compiled_name(encoder, precision)
    if name is None:
        return None
    try:
        found, again = CompiledEncoder.from_cache(name), False
    except (ModelFolderError, OSError) as error:
        found, again = None, True
        warnings.warn(f"Compiling again: {error}.", DataWarning, stacklevel=2)
    if found is not None or not (make or again):
        return found
    try:
        compile_encoder(encoder, precision)
    except WorkFailedError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        warnings.warn(f"{error} Continuing without a compiled encoder.", DataWarning, stacklevel=2)
        return None
    return CompiledEncoder.from_cache(name)


@contextmanager
def embedding_with(engine: Engine) -> Iterator[set[Engine]]:
    """Within the block this thread's encoders and tables embed by ``engine`` where no gradient is asked for.

    ``onnx`` and ``onnx-int8`` compile an encoder the first time; ``auto`` takes one that is there. What is yielded
    collects the engines that embedded; it stays empty for ``torch``.
    """
    used: set[Engine] = set()

    def embed(encoder: TextEncoder, tokens: Sequence[list[int]], advance: Advance | None) -> Tensor | None:
        found = embedded_by(engine, encoder, tokens, advance)
        used.add("torch" if found is None else compiled_engine(engine))
        return found

    before = embed_by.set(None if engine == "torch" else embed)
    try:
        yield used
    finally:
        embed_by.reset(before)


def compiled_engine(engine: Engine) -> Engine:
    """What embeds where a compiled form does: ``auto`` takes that in float32."""
    return "onnx-int8" if engine == "onnx-int8" else "onnx"


def embedded_by(
    engine: Engine, encoder: TextEncoder, tokens: Sequence[list[int]], advance: Advance | None
) -> Tensor | None:
    """The embeddings of tokens by the compiled form of ``encoder``; ``None`` where PyTorch is to make them."""
    found = compiled_form(encoder, engine)
    if found is None:
        return None
    parts = halves_of(tokens) if encoder.pairs else tokens
    vectors = torch.from_numpy(found.embed(parts, windows=encoder.windows, advance=advance)).to(encoder.device)
    return paired(vectors, n_views=len(_scales(encoder))) if encoder.pairs else vectors


_guard = Guard()
_opened: "WeakKeyDictionary[nn.Module, Opened]" = WeakKeyDictionary()


def compiled_form(encoder: TextEncoder, engine: Engine) -> CompiledEncoder | None:
    """What embeds for ``encoder``, opened once for as long as its weights stay the same; ``None`` if PyTorch does."""
    if engine == "torch" or encoder.frozen_layers is not None or (engine == "auto" and encoder.device.type != "cpu"):
        return None
    scales, later, merged = _scales(encoder), encoder.pending, tuple[nn.Module, ...]()
    if not isinstance(later, Deferred):
        merged = tuple(merged_backbone(encoder.backbone, scale) for scale in scales)
    with _guard:
        known = later.opened if isinstance(later, Deferred) else _opened.setdefault(encoder.backbone, {})
        before = known.get((scales, precision_of(engine)))
        if before is not None and all(one is other for one, other in zip(before[0], merged, strict=True)):
            return before[1]
        found = opened(encoder, precision_of(engine), make=engine != "auto")
        if found is not None:
            known[scales, precision_of(engine)] = (merged, found)
        return found


def _scales(encoder: TextEncoder) -> tuple[float | None, ...]:
    return getattr(encoder, "scales", None) or (None,)


def _write(encoder: TextEncoder, precision: Precision, work: Path) -> None:
    """``GRAPH`` in ``work``, optimised for this machine's kind of processor, with its weights beside it."""
    plain = work / "plain.onnx"
    typical = typical_tokens(encoder) if precision == "int8" else ()
    write_graph(embedder(encoder), plain, output="embeddings", int8=precision == "int8", typical=typical)
    session(plain, optimised=False, save=work / GRAPH)
    for file in work.glob(f"{plain.name}*"):
        remove_file(file)


def embedder(encoder: TextEncoder) -> Embedder:
    """What embeds as ``encoder`` does now, on the CPU, in a form that can be traced."""
    merged = [cast("PreTrainedModel", merged_backbone(encoder.backbone, each)) for each in _scales(encoder)]
    views = [with_attention(each, "eager") for each in merged]
    module = Embedder(views, normalise=encoder.normalise, pooling=encoder.pooling).eval()
    return module if encoder.device.type == "cpu" else copy.deepcopy(module).to("cpu")  # the encoder stays there


@torch.no_grad()
def _agreement(encoder: TextEncoder, made: CompiledEncoder, precision: Precision) -> Agreement:
    """Compare ``made`` with PyTorch, on long texts too.

    Raises:
        WorkFailedError: if they differ too much.
    """
    tokens = typical_tokens(encoder)
    theirs = encoder.merged().embed_tokens(tokens).float().cpu().numpy()
    found = Agreement.between(made.embed(tokens), theirs)
    if precision == "float32" and not found.apart <= SAME:
        raise WorkFailedError(f"The compiled encoder's embeddings differ by {found.apart:.1g}; it was discarded.")
    if not found.changed <= MOST_CHANGED:
        raise WorkFailedError(
            f"In int8 this encoder classifies {100 * found.changed:.0f} % of {found.texts} texts differently "
            f"(at most {100 * MOST_CHANGED:.0f} % are accepted); it was discarded. Use float32."
        )
    return found
