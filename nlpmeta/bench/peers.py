"""Other packages and plain fine-tuning, each on the same encoder weights."""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpmeta.bench.contender import Adapted, Contender, EncoderForPeers, contenders, in_order
from nlpmeta.data import LabeledTexts
from nlpmeta.data.multilabel import MultiLabelTexts
from nlpmeta.encoder.device import resolve_device
from nlpmeta.encoder.lora import AdapterSettings, adapter_weights, add_adapter
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.learners.base import Option
from nlpmeta.storage.files import remove_file, temporary_folder, write_bytes

if TYPE_CHECKING:
    from adaptive_classifier import AdaptiveClassifier as Package
    from numpy.typing import NDArray
    from setfit import SetFitModel
    from torch.nn import Module

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
            config={"max_length": self._encoder.max_length, "pooling": self._encoder.pooling},
            seed=seed,
            use_onnx=False,
        )

    def adapt(self, support: LabeledTexts) -> _AdaptiveModel:
        self._model.add_examples(self._encoder.texts(support.texts), support.names())
        return _AdaptiveModel(self._model, self._encoder, support.label_names)


BATCH = 16
"""Pairs a step, SetFit's default, and texts a step of fine-tuning."""


def wanted_steps(support: LabeledTexts | MultiLabelTexts) -> int:
    """The steps of SetFit's default: one epoch over all pairs, the rarer kind repeated until both are as many.

    Where texts may have several labels, two are alike that share one.
    """
    if isinstance(support, MultiLabelTexts):
        marks = support.matrix().astype(int)
        alike = int(np.triu(marks @ marks.T > 0).sum())
    else:
        alike = sum(count * (count + 1) // 2 for count in support.counts().values())
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


class _SetFitOfSeveral(_SetFitModel):
    """SetFit's multi-label mode, ``one-vs-rest``; a label is given from a half on."""

    def probabilities(self, texts: tuple[str, ...]) -> "NDArray[np.float64]":
        table = self.model.predict_proba(self.encoder.texts(texts), as_numpy=True, show_progress_bar=False)
        return np.asarray(table, dtype=np.float64)


@contenders.register("setfit")
class SetFit(Contender):
    """SetFit with its default settings on the sentence encoder that our methods use; steps may be limited."""

    package = "setfit"
    trains = True
    several = True

    def prepare(self, seed: int) -> None:
        from sentence_transformers import SentenceTransformer
        from setfit import SetFitModel
        from sklearn.linear_model import LogisticRegression

        self._seed, self._encoder = seed, EncoderForPeers.of(self.encoder, self.max_length)
        body = SentenceTransformer(modules=setfit_modules(self._encoder), device=str(resolve_device(self.device)))
        self._model = SetFitModel(model_body=body, model_head=LogisticRegression())

    def adapt(self, support: LabeledTexts) -> _SetFitModel:
        facts = self._trained(support.texts, support.names(), wanted_steps(support))
        return _SetFitModel(self._model, self._encoder, support.label_names, facts)

    def adapt_several(self, support: MultiLabelTexts) -> _SetFitOfSeveral:
        from setfit import SetFitModel
        from sklearn.linear_model import LogisticRegression
        from sklearn.multiclass import OneVsRestClassifier

        head = OneVsRestClassifier(LogisticRegression())
        self._model = SetFitModel(
            model_body=self._model.model_body, model_head=head, multi_target_strategy="one-vs-rest"
        )
        facts = self._trained(support.texts, support.matrix().astype(int).tolist(), wanted_steps(support))
        return _SetFitOfSeveral(self._model, self._encoder, support.label_names, facts)

    def _trained(self, texts: tuple[str, ...], labels: Sequence[object], wanted: int) -> dict[str, Option]:
        """Train the model; the steps that it took and those that it would take by itself."""
        from datasets import Dataset
        from setfit import Trainer, TrainingArguments

        logging.getLogger("setfit").setLevel(logging.WARNING)
        steps = wanted if self.max_steps is None else min(wanted, self.max_steps)
        data = Dataset.from_dict({"text": self._encoder.texts(texts), "label": labels})
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
        return {"steps": taken, "wanted_steps": wanted}


def setfit_modules(encoder: EncoderForPeers) -> list["Module"]:
    """Transformer, pooling and unit length, as our encoder."""
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(str(encoder.folder), max_seq_length=encoder.max_length)
    pooling = "lasttoken" if encoder.pooling == "last" else encoder.pooling
    return [transformer, Pooling(transformer.get_embedding_dimension(), pooling), Normalize()]


STEPS, EPOCHS = 200, 3
"""Steps, enough that the loss is flat on a few hundred texts; so many times over all texts where that is more."""
WARM_UP = 0.1
HEAD_RATE = 1e-2


class _Tuned(Adapted):
    def __init__(
        self, encoder: TextEncoder, head: nn.Linear, stored: dict[str, nn.Parameter], facts: dict[str, Option]
    ) -> None:
        self.encoder, self.head, self._stored, self._facts = encoder, head, stored, facts

    @torch.no_grad()
    def probabilities(self, texts: tuple[str, ...]) -> "NDArray[np.float64]":
        logits: Tensor = self.head(self.encoder.encode(texts).clone())
        table: NDArray[np.float64] = logits.softmax(1).cpu().double().numpy()
        return table

    def save(self, folder: Path) -> None:
        from safetensors.torch import save

        tensors = {**self._stored, "head.weight": self.head.weight, "head.bias": self.head.bias}
        write_bytes(folder / "model.safetensors", save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}))

    def facts(self) -> dict[str, Option]:
        return self._facts


class _FineTuning(Contender):
    """AdamW, a rate that rises and falls linearly, cross-entropy on batches of the support set."""

    trains = True
    rate: float

    def prepare(self, seed: int) -> None:
        self._seed = seed
        self._encoder = TextEncoder.from_pretrained(
            self.encoder, normalise=False, max_length=self.max_length, device=self.device
        )
        self._weights = self._trained_weights()

    @abstractmethod
    def _trained_weights(self) -> dict[str, nn.Parameter]:
        """What is trained of the encoder, by name."""

    def adapt(self, support: LabeledTexts) -> _Tuned:
        encoder, wanted = self._encoder, max(STEPS, -(-EPOCHS * len(support) // BATCH))
        steps = wanted if self.max_steps is None else min(wanted, self.max_steps)
        tokens, labels = encoder.tokenize(support.texts), torch.tensor(support.labels, device=encoder.device)
        head = nn.Linear(encoder.dim, support.n_way, device=encoder.device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        groups = [
            {"params": list(self._weights.values()), "lr": self.rate},
            {"params": list(head.parameters()), "lr": HEAD_RATE},
        ]
        fused = encoder.device.type in {"cpu", "cuda"}  # several times as fast where every weight is trained, as exact
        optimiser = torch.optim.AdamW(groups, weight_decay=0.01, fused=fused)
        warm = max(1, round(WARM_UP * steps))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
        )
        rng = np.random.default_rng(self._seed)
        order: list[int] = []
        for _ in range(steps):
            while len(order) < min(BATCH, len(support)):
                order += rng.permutation(len(support)).tolist()
            rows, order = order[:BATCH], order[BATCH:]
            loss = F.cross_entropy(head(encoder.embed_tokens([tokens[row] for row in rows])), labels[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        return _Tuned(encoder, head, self._weights, {"steps": steps, "wanted_steps": wanted})


@contenders.register("fine-tuning")
class FullFineTuning(_FineTuning):
    """Every weight of the encoder is trained."""

    rate = 5e-5

    def _trained_weights(self) -> dict[str, nn.Parameter]:
        self._encoder.backbone.requires_grad_(True)
        return dict(self._encoder.backbone.named_parameters())


@contenders.register("lora")
class LoraFineTuning(_FineTuning):
    """LoRA adapters of rank 8 on all linear layers are trained (Hu et al., ICLR 2022, arXiv:2106.09685)."""

    rate = 1e-3

    def _trained_weights(self) -> dict[str, nn.Parameter]:
        add_adapter(self._encoder, AdapterSettings(rank=8, alpha=16), seed=self._seed)
        return adapter_weights(self._encoder)
