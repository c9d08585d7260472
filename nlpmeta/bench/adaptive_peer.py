"""The package adaptive-classifier as a contender: prototypes and a small neural head on a frozen encoder."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nlpmeta.bench.contender import Adapted, Contender, contenders
from nlpmeta.bench.texts import EncoderForPeers, in_order
from nlpmeta.data import LabeledTexts
from nlpmeta.encoder.device import resolve_device
from nlpmeta.files import remove_file

if TYPE_CHECKING:
    from adaptive_classifier import AdaptiveClassifier as Package
    from numpy.typing import NDArray

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "sentencepiece.bpe.model")


class _AdaptiveModel(Adapted):
    def __init__(self, model: "Package", encoder: EncoderForPeers, names: tuple[str, ...]) -> None:
        self.model, self.encoder, self.names = model, encoder, names

    def probabilities(self, texts: tuple[str, ...]) -> "NDArray[np.float64]":
        ranked = self.model.predict_batch(self.encoder.texts(texts), k=len(self.names))
        rows = [dict(scores) for scores in ranked]
        table = np.asarray([[row.get(name, 0.0) for name in self.names] for row in rows], dtype=np.float64)
        return in_order(table, self.names, self.names)

    def save(self, folder: Path) -> None:
        self.model.save(str(folder), include_onnx=False)
        for name in _TOKENIZER:  # belongs to the encoder, which no method's artefact counts
            remove_file(folder / name)


@contenders.register("adaptive-classifier")
class AdaptiveClassifier(Contender):
    """The package with its default settings; PyTorch, as every other contender, not an exported graph."""

    package = "adaptive_classifier"

    def prepare(self, seed: int) -> None:
        from adaptive_classifier import AdaptiveClassifier as Package

        self._encoder = EncoderForPeers.of(self.encoder, self.max_length)
        self._model = Package(
            str(self._encoder.folder),
            device=str(resolve_device(self.device)),
            config={"max_length": self._encoder.max_length, "pooling": "mean"},
            seed=seed,
            use_onnx=False,
        )

    def adapt(self, support: LabeledTexts) -> _AdaptiveModel:
        self._model.add_examples(self._encoder.texts(support.texts), support.names())
        return _AdaptiveModel(self._model, self._encoder, support.label_names)
