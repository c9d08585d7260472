"""Copies of a transformer that share its weights: what is changed in a copy is not changed in the original."""

from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def shallow(module: Module) -> Module:
    """A copy with the same parts and the same weights, in dictionaries of its own."""
    twin = object.__new__(type(module))
    twin.__dict__.update(module.__dict__)
    for name in ("_modules", "_parameters", "_buffers"):
        twin.__dict__[name] = dict(module.__dict__[name])
    return twin


def deep(module: Module) -> Module:
    """A copy whose parts are copies too, down to the weights, which are shared."""
    twin = shallow(module)
    for name, part in module._modules.items():
        twin._modules[name] = None if part is None else deep(part)
    return twin


def with_part(module: Module, path: str, part: nn.Module) -> Module:
    """A copy with ``part`` at ``path``; all else is shared."""
    return with_parts(module, {path: part})


def with_parts(module: Module, parts: Mapping[str, nn.Module]) -> Module:
    """A copy with each of ``parts`` at its path; all else is shared."""
    twin = shallow(module)
    for name, below in _by_child(parts).items():
        if "" in below:
            twin._modules[name] = below[""]
        else:
            twin._modules[name] = with_parts(_part(module, name), below)
    return twin


def with_weights(module: Module, weights: Mapping[str, Tensor]) -> Module:
    """A copy with each of ``weights`` in place of the one of that name; all else is shared.

    What ``torch.func.functional_call`` does, but that changes the module for as long as it runs, for every thread.
    """
    twin = shallow(module)
    for name, below in _by_child(weights).items():
        if "" in below:
            twin._parameters[name] = below[""]  # type: ignore[assignment]  # any tensor will do to compute with
        else:
            twin._modules[name] = with_weights(_part(module, name), below)
    return twin


_Value = TypeVar("_Value")


def _by_child(values: Mapping[str, _Value]) -> dict[str, dict[str, _Value]]:
    """Values by path as values by the rest of the path, by its first name; the rest is empty where it ends."""
    found: dict[str, dict[str, _Value]] = {}
    for path, value in values.items():
        first, _, rest = path.partition(".")
        found.setdefault(first, {})[rest] = value
    return found


def _part(module: nn.Module, name: str) -> nn.Module:
    part = module._modules[name]
    assert part is not None  # noqa: S101  # the path was read from this module
    return part
