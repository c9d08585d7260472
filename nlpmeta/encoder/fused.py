"""What is added to the LoRA layers of peft: a weight for each row of a batch, and training in one product."""

from typing import cast

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from nlpmeta.encoder.merged import ADAPTER, adapted_layers


def prepare_layers(backbone: nn.Module) -> None:
    """Let the thin matrices of all adapters take a weight for every row, and their layers train in one product."""
    for layer in adapted_layers(backbone).values():
        for thin in (layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]):
            thin.__class__ = RowLinear  # peft built them; all but ``forward`` stays
        if type(layer) is Linear:
            layer.__class__ = FusedLinear


class RowLinear(nn.Linear):
    """A linear layer whose weight may be one for every row of a batch: ``(n, out, in)`` for inputs ``(n, width, in)``.

    Weights of that shape come from ``functional_call``: the texts of many tasks, each with the adapter of its task, go
    through the frozen weights in one product.
    """

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) if self.weight.dim() == 2 else input @ self.weight.transpose(1, 2)


class FusedLinear(Linear):
    """peft's linear layer with LoRA, in place of whose three products one is computed where that gives the same.

    It is while training on the CPU in float32 without dropout; elsewhere peft's own forward runs. Values and gradients
    agree to the rounding of float32.
    """

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        thin = [cast("Tensor", each[ADAPTER].weight) for each in (self.lora_A, self.lora_B)]
        if not torch.is_grad_enabled() or args or kwargs or not self._is_plain(x, *thin):
            return super().forward(x, *args, **kwargs)
        base = self.get_base_layer()
        return cast("Tensor", _Fused.apply(x, base.weight, base.bias, *thin, self.scaling[ADAPTER]))  # type: ignore[no-untyped-call]

    def _is_plain(self, x: Tensor, down: Tensor, up: Tensor) -> bool:
        """Whether one adapter, for all rows the same, is added without dropout, and all is float32 on the CPU."""
        base = self.get_base_layer()
        tensors = (x, down, up, base.weight)
        return (
            type(base) is nn.Linear
            and not base.weight.requires_grad
            and down.dim() == up.dim() == 2
            and not (self.disable_adapters or self.merged or self.lora_variant)
            and isinstance(self.lora_dropout[ADAPTER], nn.Identity)
            and self.lora_dropout[ADAPTER].training  # adaptation stays bit for bit as it was
            and all(each.dtype == torch.float32 and each.device.type == "cpu" for each in tensors)
            and not torch.is_autocast_enabled("cpu")
        )


class _Fused(torch.autograd.Function):
    """``x (W + s B A)^T + b`` with the gradients of ``x``, ``A`` and ``B``; ``W`` and ``b`` are frozen.

    The gradients of the thin matrices are computed from ``x A^T`` and ``g B``, so that no product is larger than those
    with ``W``. The merged weight is computed again in the backward pass, which can so be differentiated once more.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scale: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, down, up)
        ctx.scale = scale  # type: ignore[attr-defined]
        return F.linear(x, torch.addmm(weight, up, down, alpha=scale), bias)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, down, up = ctx.saved_tensors  # type: ignore[attr-defined]
        scale: float = ctx.scale  # type: ignore[attr-defined]
        rows, inputs = gradient.flatten(0, -2), x.flatten(0, -2)
        wants_x, _, _, wants_down, wants_up, _ = ctx.needs_input_grad  # type: ignore[attr-defined]
        of_x = gradient @ torch.addmm(weight, up, down, alpha=scale) if wants_x else None
        of_up = rows.t() @ (inputs @ down.t()) * scale if wants_up else None
        of_down = (rows @ up).t() @ inputs * scale if wants_down else None
        return of_x, None, None, of_down, of_up, None
