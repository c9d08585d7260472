"""A device that this machine does not have: real numbers on the CPU that nothing on the CPU may be mixed with.

A tensor there is a wrapper around a CPU tensor. As on an accelerator, an operation on tensors of both kinds is refused
(but for numbers, tensors of no dimension), and there is no float64, as on MPS.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend


class _Backend(_DummyBackendModule):
    """What PyTorch asks of a device; it draws no random numbers of its own."""

    def get_rng_state(self, device: object) -> Tensor:
        return torch.empty(0, dtype=torch.uint8, device="cpu")

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def set_rng_state(self, state: Tensor, device: object) -> None:
        pass


_setup_privateuseone_for_python_backend("elsewhere", backend_module=_Backend())  # for the whole process
ELSEWHERE = torch.device("elsewhere:0")
_INDEXED = ("index.", "index_put", "_index_put")  # indices may be on the CPU
_COPIES = ("copy_.", "_copy_from", "_to_copy", "to.")


class Elsewhere(Tensor):
    """A tensor of the other device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Elsewhere":
        if inner.dtype == torch.float64:
            raise TypeError(f"{ELSEWHERE} has no float64")
        with torch.inference_mode(False):  # a view in inference mode of a tensor from outside is none of its kind
            made: Elsewhere = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
                cls,
                inner.size(),
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                device=ELSEWHERE,
                requires_grad=inner.requires_grad,
            )
        made.inner = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Elsewhere({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        return _run(func, args, kwargs or {})


class _FromLists(TorchFunctionMode):
    """``torch.tensor`` and its like copy to a device below what a dispatch mode sees."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs = dict(kwargs or {})
        if func is Tensor.new_tensor and isinstance(args[0], Elsewhere):
            args, kwargs, func = args[1:], {"dtype": args[0].dtype, "device": ELSEWHERE, **kwargs}, torch.tensor
        if func in (torch.tensor, torch.as_tensor) and str(kwargs.get("device")).startswith(ELSEWHERE.type):
            return Elsewhere(torch.tensor(*args, **{**kwargs, "device": "cpu"}))
        if args and isinstance(args[0], Elsewhere):
            if func is Tensor.__getitem__ and isinstance(args[1], list):
                args = (args[0], torch.tensor(args[1], dtype=torch.int64, device="cpu"))
            elif func is Tensor.__setitem__ and isinstance(args[1], list):
                args = (args[0], torch.tensor(args[1], dtype=torch.int64, device="cpu"), args[2])
            elif func in (Tensor.tolist, Tensor.data_ptr):
                return func(args[0].inner)
            elif getattr(func, "__name__", "") in ("lstm", "lstm_cell"):  # PyTorch takes kernels of the device
                return tree_map(_outer, func(*tree_map(_inner, args), **kwargs))
            elif func is Tensor.data.__set__:  # type: ignore[attr-defined]
                args[0].inner = args[1].inner
                return None
        return func(*args, **kwargs)


@contextmanager
def another_device() -> Iterator[torch.device]:
    """A block in which there is the device ``ELSEWHERE``; tensors that are made without a device are of no use."""
    with _Mode(), torch.device("meta"), _FromLists():
        yield ELSEWHERE


def moved(module: nn.Module) -> nn.Module:
    """``module`` with its weights on the other device; within ``another_device``."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None and not isinstance(weight.data, Elsewhere):
                part._parameters[name] = nn.Parameter(Elsewhere(weight.detach()), requires_grad=weight.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None and not isinstance(buffer, Elsewhere):
                part._buffers[name] = Elsewhere(buffer)
    return module


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
    name = func._schema.name.removeprefix("aten::") + "."
    leaves = tree_flatten((args, kwargs))[0]
    flat = [each for each in leaves if isinstance(each, Tensor)]
    there = any(isinstance(each, Elsewhere) for each in flat)
    asked = [each for each in leaves if isinstance(each, torch.device)]
    to = asked[0] if asked else ELSEWHERE if there else None
    if "meta" in {each.device.type for each in flat} and not all(each.is_meta for each in flat):
        raise RuntimeError(f"{name} got a tensor that was made without a device")
    plain = [each for each in flat if not isinstance(each, Elsewhere) and each.dim() > 0]
    if there and plain and not name.startswith((*_INDEXED, *_COPIES)):
        raise RuntimeError(f"{name} got tensors on {ELSEWHERE} and on the CPU")
    is_elsewhere = to is not None and to.type == ELSEWHERE.type
    inner_args, inner_kwargs = tree_map(_inner, (args, kwargs))
    found = func(*inner_args, **inner_kwargs)
    if name.endswith("_.") and not name.endswith("__."):  # in place
        return args[0]
    if not is_elsewhere:
        return found
    return tree_map(_outer, found)


def _inner(leaf: object) -> object:
    if isinstance(leaf, torch.device) and leaf.type == ELSEWHERE.type:
        return torch.device("cpu")
    return leaf.inner if isinstance(leaf, Elsewhere) else leaf


def _outer(leaf: object) -> object:
    return Elsewhere(leaf) if isinstance(leaf, Tensor) else leaf
