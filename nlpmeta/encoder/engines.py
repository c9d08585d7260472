"""Engines: what embeds tokens without gradients. PyTorch, or a compiled encoder that ONNX Runtime runs without it.

A compiled encoder is a folder of the user's cache: the graph of the transformer with its adapters in the weights,
pooling and scaling to unit length included, and the vocabulary. Its name is a digest of all that it depends on, so it
is never out of date, and every model on the same checkpoint finds the same one. Nothing here imports torch.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

import numpy as np

from nlpmeta.encoder.files import Pooling, file_digest
from nlpmeta.encoder.parts import Windows
from nlpmeta.encoder.tokenizing import BATCH_TOKENS, length_batches
from nlpmeta.encoder.vocabulary import Vocabulary
from nlpmeta.errors import ModelFolderError, NLPMetaError, UnknownNameError
from nlpmeta.progress import Advance
from nlpmeta.storage.files import inside, is_regular, read_json, user_cache

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession

Engine = Literal["auto", "torch", "onnx", "onnx-int8"]
"""``auto`` is the compiled encoder in float32 where there is one, and PyTorch elsewhere."""
Precision = Literal["float32", "int8"]
FORMAT = 3
FACTS, GRAPH = "compiled.json", "encoder.onnx"
FROZEN = "frozen"
"""The view of an encoder without adapters, or with adapters whose scale is 0."""
LOWER = ", lower layers"
"""What the name of a view ends with that is of the lower layers alone."""
_MOST_FACTS = 1 << 20  # bytes
_ADVICE = "pip install 'nlpmeta[fast]'"
CompiledEmbed: TypeAlias = Callable[[Any, Sequence[list[int]], Advance | None], Any]
"""From an encoder and the tokens of texts to a tensor of embeddings; ``None`` where PyTorch is to make them."""
embed_by: ContextVar[CompiledEmbed | None] = ContextVar("embed_by", default=None)
"""What embeds in this thread at the moment, in place of PyTorch; see ``compiling.embedding_with``."""


def check_engine(name: str) -> Engine:
    """The engine called ``name``, which can run here.

    Raises:
        UnknownNameError: if there is none of that name.
        NLPMetaError: if ONNX Runtime is not installed.
    """
    if name not in get_args(Engine):
        raise UnknownNameError("engine", name, get_args(Engine))
    if name.startswith("onnx") and runtime_version() is None:
        raise NLPMetaError(f"The engine {name} needs ONNX Runtime: {_ADVICE}")
    return cast("Engine", name)


def check_packages() -> None:
    """See that what compiling needs is installed.

    Raises:
        NLPMetaError: if it is not.
    """
    if missing := [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]:
        raise NLPMetaError(f"Compiling needs {' and '.join(missing)}: {_ADVICE}")


def precision_of(engine: Engine) -> Precision:
    """In what numbers an engine computes."""
    return "int8" if engine == "onnx-int8" else "float32"


def runtime_version() -> str | None:
    """The version of ONNX Runtime here, ``None`` without it."""
    try:
        return version("onnxruntime")
    except PackageNotFoundError:
        return None


def takes_compiled(device: object, engine: Engine) -> bool:
    """Whether a compiled encoder may stand in for PyTorch: on the CPU, where ``auto`` does not mean a graphics card."""
    if engine == "torch":
        return False
    named = os.environ.get("NLPMETA_DEVICE", "auto") if device == "auto" else str(device)
    return named == "cpu" or (named == "auto" and (engine != "auto" or not Path("/dev/nvidia0").exists()))


def compiled_home() -> Path:
    """Where compiled encoders and heads lie."""
    return user_cache() / "compiled"


@dataclass(frozen=True)
class CompiledName:
    """All that a compiled encoder depends on.

    Args:
        encoder: the digest of its files.
        views: a digest of the adapters and their scales, or ``FROZEN``, for each view; embeddings stand side by side.
        normalise: whether embeddings have unit length.
        precision: of the weights.
        runtime: the version of ONNX Runtime, which optimised the graph.
        format: of the folder.
        pooling: of the tokens.
    """

    encoder: str
    views: tuple[str, ...]
    normalise: bool
    precision: Precision = "float32"
    runtime: str | None = None
    format: int = FORMAT
    pooling: Pooling = "mean"

    @property
    def folder(self) -> Path:
        """Where it is, or would be."""
        facts = json.dumps(self.json(), sort_keys=True)
        return compiled_home() / hashlib.sha256(facts.encode()).hexdigest()[:32]

    @property
    def wider(self) -> "CompiledName | None":
        """What has these views among others, for no more passes: with adapters also the lower layers, and the reverse.

        ``None`` if there is nothing to add.
        """
        adapted = {view.removesuffix(LOWER) for view in self.views if view != FROZEN}
        frozen = tuple(view for view in self.views if view == FROZEN)
        every = tuple(part for each in adapted for part in (each, *frozen, each + LOWER))
        return replace(self, views=every) if len(adapted) == 1 and every != self.views else None

    @property
    def there(self) -> "CompiledName | None":
        """What was compiled: under this name, or else the ``wider`` one; ``None`` if nothing was."""
        return next((name for name in (self, self.wider) if name is not None and name.folder.is_dir()), None)

    def json(self) -> dict[str, object]:
        """For its file, and for the digest."""
        facts = {**asdict(self), "views": list(self.views), "runtime": self.runtime or runtime_version()}
        return {key: value for key, value in facts.items() if (key, value) != ("pooling", "mean")}


class CompiledEncoder:
    """Embeds tokens with the graph in a folder; any number of threads may ask.

    ``views`` are those of the graph that are given, by their places; ``None`` gives all.
    """

    def __init__(self, folder: Path, facts: Mapping[str, object], views: Sequence[int] | None = None) -> None:
        self.folder, self.views = folder, views
        name = facts.get("name")
        known = (name["views"], bool(name["normalise"])) if isinstance(name, Mapping) else ([""], True)
        self._n_all, self._normalise, self._blank = len(known[0]), known[1], int(str(facts.get("blank", 0)))

    @classmethod
    def from_cache(cls, name: CompiledName) -> "CompiledEncoder | None":
        """The compiled encoder of that name, or the same views of the ``wider`` one; ``None`` if there is neither.

        Raises:
            ModelFolderError: if what is there is damaged, incomplete, of a newer format, or something else.
        """
        if (there := name.there) is None:
            return None
        views = None if there == name else [there.views.index(view) for view in name.views]
        return cls(there.folder, cls._facts(there), views)

    @staticmethod
    def _facts(name: CompiledName) -> Mapping[str, object]:
        """What is written of a compiled encoder, all of whose files are as they were."""
        folder = name.folder
        facts = read_json(folder / FACTS, most=_MOST_FACTS)
        if not isinstance(facts, Mapping) or not isinstance(files := facts.get("files"), Mapping):
            raise ModelFolderError(f"the compiled encoder in {folder} is damaged: {FACTS} lists no files")
        named = facts.get("name")
        form = named.get("format") if isinstance(named, Mapping) else None
        if isinstance(form, int) and form > FORMAT:
            raise ModelFolderError(f"the compiled encoder in {folder} is of the newer format {form}")
        if named != name.json():
            raise ModelFolderError(f"{folder} holds another compiled encoder than its name says")
        for file, digest in files.items():
            path = inside(folder, str(file))
            if not is_regular(path) or file_digest(path) != digest:
                raise ModelFolderError(f"the compiled encoder in {folder} is damaged: {path.name} is not as written")
        if GRAPH not in files:
            raise ModelFolderError(f"the compiled encoder in {folder} is damaged: it has no {GRAPH}")
        if type(blank := facts.get("blank")) is not int:
            raise ModelFolderError(f"the compiled encoder in {folder} is damaged: {FACTS} has no token {blank!r}")
        return facts

    @classmethod
    def is_sound(cls, name: CompiledName) -> bool:
        """Whether there is a compiled encoder of that name, and it is whole."""
        try:
            return cls.from_cache(name) is not None
        except (ModelFolderError, OSError):
            return False

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Its tokenizer."""
        return Vocabulary(self.folder)

    @cached_property
    def _session(self) -> "InferenceSession":
        return session(self.folder / GRAPH)

    def embed(
        self,
        tokens: Sequence[Sequence[int]],
        *,
        windows: Windows | None = None,
        batch_tokens: int = BATCH_TOKENS,
        advance: Advance | None = None,
    ) -> "NDArray[np.float32]":
        """Embeddings ``(n, n_views * dim)`` of at least one text, each of at least one token, in the views asked for.

        Args:
            tokens: of each text.
            windows: how texts are divided that do not go through at once.
            batch_tokens: padded tokens of a group at most.
            advance: called after every group.

        Raises:
            ModelFolderError: if an embedding is not finite.
        """
        if windows is not None and (split := windows.split(tokens)) is not None:
            each = self.embed(split.tokens, batch_tokens=batch_tokens, advance=split.advance(advance))
            n_views = self._n_all if self.views is None else len(self.views)
            return split.pooled_array(each, n_views=n_views, normalise=self._normalise)
        parts: list[NDArray[np.float32]] = []
        groups = length_batches([len(ids) for ids in tokens], batch_tokens=batch_tokens)
        for rows in groups:
            width = max(len(tokens[row]) for row in rows)
            ids = np.full((len(rows), width), self._blank, dtype=np.int64)
            mask = np.zeros_like(ids)
            for place, row in enumerate(rows):
                ids[place, : len(tokens[row])], mask[place, : len(tokens[row])] = tokens[row], 1
            parts.append(self._given(self._session.run(None, {"input_ids": ids, "attention_mask": mask})[0]))
            if advance is not None:
                advance(len(rows))
        order = np.argsort([row for rows in groups for row in rows])
        vectors: NDArray[np.float32] = np.concatenate(parts)[order]
        if not np.isfinite(vectors).all():
            raise ModelFolderError(f"The compiled encoder in {self.folder} gives embeddings that are not finite.")
        return vectors

    def _given(self, vectors: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """Of all views of the graph ``(n, n_all * dim)`` those that are asked for."""
        if self.views is None:
            return vectors
        each = np.split(vectors, self._n_all, axis=1)
        return np.concatenate([each[view] for view in self.views], axis=1)


def session(graph: Path, *, optimised: bool = True, save: Path | None = None) -> "InferenceSession":
    """ONNX Runtime on a graph, with as many threads as ``OMP_NUM_THREADS`` says.

    Args:
        graph: the file.
        optimised: whether it was optimised when it was written.
        save: where to write the optimised graph, its weights beside it, to be mapped into memory and not read.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    options.intra_op_num_threads = int(threads) if threads.isdigit() else 0
    options.inter_op_num_threads, options.log_severity_level = 1, 3
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_DISABLE_ALL if optimised else levels.ORT_ENABLE_ALL
    if save is not None:
        options.optimized_model_filepath = str(save)
        beside = "session.optimized_model_external_initializers"
        options.add_session_config_entry(f"{beside}_file_name", f"{save.name}.data")
        options.add_session_config_entry(f"{beside}_min_size_in_bytes", "1024")
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
