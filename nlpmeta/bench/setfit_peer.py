"""SetFit (Tunstall et al. 2022, arXiv:2209.11055) as a contender: contrastive fine-tuning, then logistic regression."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nlpmeta.bench.contender import Adapted, Contender, contenders
from nlpmeta.bench.texts import EncoderForPeers, in_order
from nlpmeta.data import LabeledTexts
from nlpmeta.encoder.device import resolve_device
from nlpmeta.files import temporary_folder
from nlpmeta.learners.base import Option

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from setfit import SetFitModel
    from torch.nn import Module

BATCH = 16
"""Pairs a step, SetFit's default."""


def wanted_steps(support: LabeledTexts) -> int:
    """The steps of SetFit's default: one epoch over all pairs, the rarer kind repeated until both are as many."""
    counts = list(support.counts().values())
    alike = sum(count * (count + 1) // 2 for count in counts)
    all_pairs = len(support) * (len(support) + 1) // 2
    return -(-2 * max(alike, all_pairs - alike) // BATCH)


class _SetFitModel(Adapted):
    def __init__(
        self, model: "SetFitModel", encoder: EncoderForPeers, names: tuple[str, ...], facts: dict[str, Option]
    ) -> None:
        self.model, self.encoder, self.names, self._facts = model, encoder, names, facts

    def probabilities(self, texts: tuple[str, ...]) -> "NDArray[np.float64]":
        table = self.model.predict_proba(self.encoder.texts(texts), as_numpy=True, show_progress_bar=False)
        return in_order(table, self.model.model_head.classes_, self.names)

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(str(folder))

    def facts(self) -> dict[str, Option]:
        return self._facts


@contenders.register("setfit")
class SetFit(Contender):
    """SetFit with its default settings on the sentence encoder that our methods use; steps may be limited."""

    package = "setfit"
    trains = True

    def prepare(self, seed: int) -> None:
        from sentence_transformers import SentenceTransformer
        from setfit import SetFitModel
        from sklearn.linear_model import LogisticRegression

        self._seed, self._encoder = seed, EncoderForPeers.of(self.encoder, self.max_length)
        body = SentenceTransformer(modules=_modules(self._encoder), device=str(resolve_device(self.device)))
        self._model = SetFitModel(model_body=body, model_head=LogisticRegression())

    def adapt(self, support: LabeledTexts) -> _SetFitModel:
        from datasets import Dataset
        from setfit import Trainer, TrainingArguments

        logging.getLogger("setfit").setLevel(logging.WARNING)
        wanted = wanted_steps(support)
        steps = wanted if self.max_steps is None else min(wanted, self.max_steps)
        data = Dataset.from_dict({"text": self._encoder.texts(support.texts), "label": support.names()})
        with temporary_folder() as folder:
            settings = TrainingArguments(
                output_dir=folder,
                max_steps=steps,
                seed=self._seed,
                report_to="none",
                save_strategy="no",
                show_progress_bar=False,
            )
            trainer = Trainer(model=self._model, args=settings, train_dataset=data)
            trainer.train()
            taken = int(trainer.st_trainer.state.global_step)
        facts: dict[str, Option] = {"steps": taken, "wanted_steps": wanted}
        return _SetFitModel(self._model, self._encoder, support.label_names, facts)


def _modules(encoder: EncoderForPeers) -> list["Module"]:
    """Transformer, mean pooling and unit length, as our encoder."""
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(str(encoder.folder), max_seq_length=encoder.max_length)
    return [transformer, Pooling(transformer.get_embedding_dimension()), Normalize()]
