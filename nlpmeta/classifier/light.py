"""A saved model that predicts without PyTorch: a compiled encoder, and its heads as linear layers in NumPy.

The linear layers are read off a loaded model once, by ``nlpmeta compile`` or the first prediction with a compiled
encoder, and kept in the user's cache under a digest of the model's manifest, which lists the digest of its every file.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np

from nlpmeta import __version__
from nlpmeta.data.inputs import checked_texts
from nlpmeta.encoder.engines import CompiledEncoder, CompiledName, Engine, compiled_home, precision_of
from nlpmeta.encoder.parts import Windows
from nlpmeta.encoder.tokenizing import collected_cuts
from nlpmeta.errors import ModelFolderError, NLPMetaError
from nlpmeta.storage.files import LARGEST_JSON, read_bytes, write_bytes
from nlpmeta.storage.manifest import MANIFEST, read_manifest

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

FORMAT = 1
_LARGEST = 1 << 28  # bytes


@dataclass(frozen=True, eq=False)
class LightHeads:
    """Linear heads and how their probabilities are mixed, as ``export.head.LinearHeads`` has them.

    weight ``(n_heads, n_way, n_views * dim)``, bias ``(n_heads, n_way)``, shares ``(n_heads,)`` of sum 1.
    """

    weight: "NDArray[np.float32]"
    bias: "NDArray[np.float32]"
    shares: "NDArray[np.float32]"
    temperature: float

    def probabilities(self, features: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """From embeddings ``(n, n_views * dim)`` to class probabilities ``(n, n_way)``."""
        rows = features.astype(np.float64)
        each = [_log_softmax(rows @ weight.T + bias) for weight, bias in zip(self.weight, self.bias, strict=True)]
        shares = np.log(np.clip(self.shares.astype(np.float64), 1e-30, None)).reshape(-1, 1, 1)
        mixture = _log_sum_exp(np.stack(each) + shares, axis=0) / self.temperature
        return np.exp(_log_softmax(mixture)).astype(np.float32)


@final
@dataclass(frozen=True, eq=False)
class LightClassifier:
    """Predicts as the ``FewShotClassifier`` in a folder does, with the same probabilities to 1e-5 in float32.

    Attributes:
        classes_: the labels, ``(n_way,)``.
        max_length: the tokens that are read of a text.
        most_tokens: the tokens that could go through at once; ``None`` if the encoder does not say.
        windows: how texts are divided that do not go through at once.
    """

    heads: LightHeads
    classes_: "NDArray[np.generic]"
    name: CompiledName
    prefix: str
    max_length: int
    most_tokens: int | None
    windows: Windows | None = None

    @classmethod
    def of_folder(cls, folder: Path, engine: Engine) -> "LightClassifier | None":
        """The model in ``folder``, if its heads and its encoder are compiled and sound; ``None`` otherwise.

        Raises:
            NLPMetaError: as ``FewShotClassifier.from_pretrained``, if the folder is not that of a whole model.
        """
        try:
            place = _place(folder)
        except OSError:  # it has no manifest that can be read
            return None
        if not place.is_file():
            return None
        read_manifest(folder)
        try:
            found = cls._read(place, engine)
            return found if found is not None and found._encoder is not None else None
        except (ModelFolderError, OSError, ValueError, KeyError, TypeError):
            return None  # the caller loads the model in full, and compiles again what is damaged

    @classmethod
    def _read(cls, path: Path, engine: Engine) -> "LightClassifier | None":
        from safetensors.numpy import load

        content = read_bytes(path, most=_LARGEST)
        facts = json.loads(
            json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["nlpmeta"]
        )
        tensors = load(content)
        heads = LightHeads(tensors["weight"], tensors["bias"], tensors["shares"], float(facts["temperature"]))
        if heads.weight.shape[:2] != heads.bias.shape:
            return None
        views, pooling = tuple(facts["views"]), facts.get("pooling", "mean")
        name = CompiledName(
            facts["encoder"], views, bool(facts["normalise"]), precision_of(engine), pooling=pooling
        )  # fmt: skip
        classes = np.asarray(facts["classes"], dtype=facts["dtype"])
        windows = None if facts.get("windows") is None else Windows(*facts["windows"])
        return cls(heads, classes, name, facts["prefix"], facts["max_length"], facts["most_tokens"], windows)

    @cached_property
    def _encoder(self) -> CompiledEncoder | None:
        return CompiledEncoder.from_cache(self.name)

    def predict_proba(self, X: "Sequence[str] | ArrayLike") -> "NDArray[np.float32]":  # noqa: N803
        """Class probabilities, ``(n_texts, n_way)``, columns in the order of ``classes_``."""
        texts, cut = checked_texts(X), collected_cuts()
        if self._encoder is None:
            raise NLPMetaError("The compiled encoder of this model is gone. Make it with: nlpmeta compile")
        distinct = list(dict.fromkeys(texts))
        note = None if cut is None else lambda row: cut.add(distinct[row])
        prefixed = [self.prefix + text.strip() for text in distinct]
        tokens = self._encoder.vocabulary.ids(prefixed, max_length=self.max_length, on_cut=note)
        row = {text: i for i, text in enumerate(distinct)}
        return self.heads.probabilities(self._encoder.embed(tokens, windows=self.windows))[
            [row[text] for text in texts]
        ]


def write_light(
    folder: Path, heads: LightHeads, classes: "NDArray[np.generic]", name: CompiledName, facts: "dict[str, object]"
) -> None:
    """Keep the heads of the model in ``folder`` for predictions without PyTorch.

    Args:
        folder: the model's.
        heads: as linear layers.
        classes: the labels.
        name: of the compiled encoder.
        facts: prefix, max_length, most_tokens and windows, as ``LightClassifier`` has them.

    Raises:
        WorkFailedError: if the cache cannot be written.
    """
    from safetensors.numpy import save

    described = {
        **facts,
        "temperature": heads.temperature,
        "encoder": name.encoder,
        "views": list(name.views),
        "normalise": name.normalise,
        **({} if name.pooling == "mean" else {"pooling": name.pooling}),
        "classes": classes.tolist(),
        "dtype": classes.dtype.str,
    }
    tensors = {"weight": heads.weight, "bias": heads.bias, "shares": heads.shares}
    metadata = {"nlpmeta": json.dumps(described, ensure_ascii=False)}
    write_bytes(_place(folder), save({key: np.ascontiguousarray(each) for key, each in tensors.items()}, metadata))


def _place(folder: Path) -> Path:
    """Where the heads of the model in ``folder`` are kept; another release reads them off again."""
    manifest = read_bytes(folder / MANIFEST, most=LARGEST_JSON)
    digest = sha256(b"%d %s " % (FORMAT, __version__.encode()) + manifest).hexdigest()
    return compiled_home() / "models" / f"{digest[:32]}.safetensors"


def _log_softmax(scores: "NDArray[np.float64]") -> "NDArray[np.float64]":
    found: NDArray[np.float64] = scores - _log_sum_exp(scores, axis=1)[:, None]
    return found


def _log_sum_exp(values: "NDArray[np.float64]", *, axis: int) -> "NDArray[np.float64]":
    highest = values.max(axis, keepdims=True)
    found: NDArray[np.float64] = np.log(np.exp(values - highest).sum(axis)) + highest.squeeze(axis)
    return found
