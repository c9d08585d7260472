"""Predictions without PyTorch: a compiled encoder, and heads as linear layers in NumPy.

The linear layers are read off a loaded model once, by ``nlpmeta compile`` or the first prediction with a compiled
encoder, and kept in the user's cache under a digest of the model's manifest, which lists the digest of its every file.
For classes that are known by their names alone the same is kept of a checkpoint.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from nlpmeta import __version__
from nlpmeta.data import LabeledTexts, words_instead
from nlpmeta.data.inputs import checked_texts
from nlpmeta.data.labels import checked_descriptions, classes_of, words_of
from nlpmeta.data.multilabel import named_classes
from nlpmeta.encoder.engines import CompiledEncoder, CompiledName, Engine, compiled_home, precision_of
from nlpmeta.encoder.parts import Windows
from nlpmeta.encoder.tokenizing import collected_cuts
from nlpmeta.errors import ModelFolderError, NLPMetaError
from nlpmeta.storage.files import LARGEST_JSON, Json, read_bytes, write_bytes, write_json
from nlpmeta.storage.manifest import MANIFEST, read_manifest

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

FORMAT = 1
_LARGEST = 1 << 28  # bytes
_UNSOUND = (ModelFolderError, OSError, ValueError, KeyError, TypeError)


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


@dataclass(frozen=True, eq=False)
class LightEncoder:
    """A compiled encoder with how texts are read for it.

    Attributes:
        name: of the compiled encoder.
        prefix: what is put before every text.
        max_length: the tokens that are read of a text.
        most_tokens: the tokens that could go through at once; ``None`` if the encoder does not say.
        windows: how texts are divided that do not go through at once.
    """

    name: CompiledName
    prefix: str
    max_length: int
    most_tokens: int | None
    windows: Windows | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any], engine: Engine) -> "LightEncoder":
        """From what ``json`` gave."""
        name = CompiledName(
            facts["encoder"], tuple(facts["views"]), bool(facts["normalise"]), precision_of(engine),
            pooling=facts.get("pooling", "mean"),
        )  # fmt: skip
        windows = None if facts.get("windows") is None else Windows(*facts["windows"])
        return cls(name, facts["prefix"], facts["max_length"], facts["most_tokens"], windows)

    def json(self) -> dict[str, Json]:
        """For a file."""
        return {
            "encoder": self.name.encoder, "views": list(self.name.views), "normalise": self.name.normalise,
            "prefix": self.prefix, "max_length": self.max_length, "most_tokens": self.most_tokens,
            "pooling": self.name.pooling,
            "windows": None if self.windows is None else list(astuple(self.windows)),
        }  # fmt: skip

    @cached_property
    def compiled(self) -> CompiledEncoder | None:
        """The compiled encoder, ``None`` if there is none."""
        return CompiledEncoder.from_cache(self.name)

    def embed(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """Embeddings ``(len(texts), n_views * dim)``, each distinct text computed once.

        Raises:
            NLPMetaError: if the compiled encoder is gone.
        """
        if self.compiled is None:
            raise NLPMetaError("The compiled encoder of this model is gone. Make it with: nlpmeta compile")
        distinct, cut = list(dict.fromkeys(texts)), collected_cuts()
        note = None if cut is None else lambda row: cut.add(distinct[row])
        prefixed = [self.prefix + text.strip() for text in distinct]
        tokens = self.compiled.vocabulary.ids(prefixed, max_length=self.max_length, on_cut=note)
        row = {text: i for i, text in enumerate(distinct)}
        return self.compiled.embed(tokens, windows=self.windows)[[row[text] for text in texts]]


@final
@dataclass(frozen=True, eq=False)
class LightClassifier:
    """Predicts as the ``FewShotClassifier`` in a folder does, with the same probabilities to 1e-5 in float32.

    Attributes:
        classes_: the labels, ``(n_way,)``.
    """

    heads: LightHeads
    classes_: "NDArray[np.generic]"
    encoder: LightEncoder

    @classmethod
    def of_folder(cls, folder: Path, engine: Engine) -> "LightClassifier | None":
        """The model in ``folder``, if its heads and its encoder are compiled and sound; ``None`` otherwise.

        Raises:
            NLPMetaError: as ``FewShotClassifier.from_pretrained``, if the folder is not that of a whole model.
        """
        place = _place(folder, ".safetensors")
        if place is None or not place.is_file():
            return None
        read_manifest(folder)
        try:
            found = cls._read(place, engine)
            return found if found is not None and found.encoder.compiled is not None else None
        except _UNSOUND:
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
        return cls(heads, np.asarray(facts["classes"], dtype=facts["dtype"]), LightEncoder.of(facts, engine))

    def predict_proba(self, X: "Sequence[str] | ArrayLike") -> "NDArray[np.float32]":  # noqa: N803
        """Class probabilities, ``(n_texts, n_way)``, columns in the order of ``classes_``."""
        return self.heads.probabilities(self.encoder.embed(checked_texts(X)))


@final
@dataclass(frozen=True, eq=False)
class LightNames:
    """Makes classifiers of the names of classes alone, as ``FewShotClassifier.from_names`` does.

    Attributes:
        encoder: what prototypes are of.
        ways: numbers of classes, rising.
        scores_over: what cosines are divided by, for each of these.
        temperatures: what the scores are then divided by.
    """

    encoder: LightEncoder
    ways: tuple[float, ...]
    scores_over: tuple[float, ...]
    temperatures: tuple[float, ...]

    @classmethod
    def of_checkpoint(cls, checkpoint: Path, engine: Engine) -> "LightNames | None":
        """For ``auto`` on ``checkpoint``, if that is compiled and sound; ``None`` otherwise."""
        place = _place(checkpoint, ".json")
        if place is None or not place.is_file():
            return None
        try:
            facts = json.loads(read_bytes(place, most=LARGEST_JSON))
            known = (tuple(map(float, facts[name])) for name in ("ways", "scores_over", "temperatures"))
            found = cls(LightEncoder.of(facts, engine), *known)
            return None if found.encoder.compiled is None else found
        except _UNSOUND:
            return None

    def classifier(self, names: Sequence[str], descriptions: object = None) -> LightClassifier:
        """A classifier of these classes.

        Raises:
            DataError: as ``FewShotClassifier.from_names``.
        """
        classes = classes_of(named_classes(names))
        said = {} if descriptions is None else checked_descriptions(descriptions, classes)
        described = tuple(said.get(each, ()) for each in classes.tolist()) if said else None
        named = LabeledTexts((), (), words_of(classes), descriptions=described, by_name=True)
        words = words_instead(named, range(named.n_way))
        vectors = self.encoder.embed([text for each in words for text in each]).astype(np.float64)
        ends = np.cumsum([len(each) for each in words])
        means = np.stack([part.mean(0) for part in np.split(vectors, ends[:-1])])
        at, ways = np.log(named.n_way), np.log(self.ways)
        over = np.exp(np.interp(at, ways, np.log(self.scores_over)))  # both as in a Surface; here powers are linear
        temperature = float(np.interp(at, ways, self.temperatures))
        scaled = means / np.linalg.norm(means, axis=1, keepdims=True).clip(1e-12) / over
        weight, bias = scaled[None].astype(np.float32), np.zeros((1, named.n_way), np.float32)
        return LightClassifier(LightHeads(weight, bias, np.ones(1, np.float32), temperature), classes, self.encoder)


def write_light(folder: Path, heads: LightHeads, classes: "NDArray[np.generic]", encoder: LightEncoder) -> None:
    """Keep the heads of the model in ``folder`` for predictions without PyTorch.

    Raises:
        WorkFailedError: if the cache cannot be written.
    """
    from safetensors.numpy import save

    described = {
        **encoder.json(),
        "temperature": heads.temperature,
        "classes": classes.tolist(),
        "dtype": classes.dtype.str,
    }
    tensors = {"weight": heads.weight, "bias": heads.bias, "shares": heads.shares}
    metadata = {"nlpmeta": json.dumps(described, ensure_ascii=False)}
    content = save({key: np.ascontiguousarray(each) for key, each in tensors.items()}, metadata)
    if (place := _place(folder, ".safetensors")) is not None:
        write_bytes(place, content)


def write_names(checkpoint: Path, encoder: LightEncoder, over: Mapping[float, tuple[float, float]]) -> None:
    """Keep what predictions by the names of classes alone need of ``checkpoint``, without PyTorch.

    Args:
        checkpoint: its folder.
        encoder: what the prototypes of names are of.
        over: what cosines are divided by, and then the scores, for some numbers of classes, rising.

    Raises:
        WorkFailedError: if the cache cannot be written.
    """
    scores_over, temperatures = zip(*over.values(), strict=True)
    facts = {**encoder.json(), "ways": list(over), "scores_over": scores_over, "temperatures": temperatures}
    if (place := _place(checkpoint, ".json")) is not None:
        write_json(place, facts)


def _place(folder: Path, suffix: str) -> Path | None:
    """Where the heads of the model in ``folder`` are kept, if it is one; another release reads them off again."""
    try:
        manifest = read_bytes(folder / MANIFEST, most=LARGEST_JSON)
    except OSError:
        return None
    digest = sha256(b"%d %s " % (FORMAT, __version__.encode()) + manifest).hexdigest()
    return compiled_home() / "models" / f"{digest[:32]}{suffix}"


def _log_softmax(scores: "NDArray[np.float64]") -> "NDArray[np.float64]":
    found: NDArray[np.float64] = scores - _log_sum_exp(scores, axis=1)[:, None]
    return found


def _log_sum_exp(values: "NDArray[np.float64]", *, axis: int) -> "NDArray[np.float64]":
    highest = values.max(axis, keepdims=True)
    found: NDArray[np.float64] = np.log(np.exp(values - highest).sum(axis)) + highest.squeeze(axis)
    return found
