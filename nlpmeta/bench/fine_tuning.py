"""Plain fine-tuning as a contender: a linear head on the pooled encoder, trained whole or by LoRA adapters."""

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpmeta.bench.contender import Adapted, Contender, contenders
from nlpmeta.data import LabeledTexts
from nlpmeta.encoder.lora import AdapterSettings, adapter_weights, add_adapter
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.files import write_bytes
from nlpmeta.learners.base import Option

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS, BATCH = 200, 16
"""Steps (enough that the loss is flat on a few hundred texts) and texts a step."""
WARM_UP = 0.1
HEAD_RATE = 1e-2


class _Tuned(Adapted):
    def __init__(self, encoder: TextEncoder, head: nn.Linear, stored: dict[str, nn.Parameter], steps: int) -> None:
        self.encoder, self.head, self._stored, self._steps = encoder, head, stored, steps

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
        return {"steps": self._steps}


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
        encoder, steps = self._encoder, STEPS if self.max_steps is None else min(STEPS, self.max_steps)
        tokens, labels = encoder.tokenize(support.texts), torch.tensor(support.labels, device=encoder.device)
        head = nn.Linear(encoder.dim, support.n_way, device=encoder.device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        groups = [
            {"params": list(self._weights.values()), "lr": self.rate},
            {"params": list(head.parameters()), "lr": HEAD_RATE},
        ]
        optimiser = torch.optim.AdamW(groups, weight_decay=0.01)
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
        return _Tuned(encoder, head, self._weights, steps)


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
