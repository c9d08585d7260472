"""A transformer cut between two layers: the lower part and the upper part share its weights."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nlpmeta.encoder.twins import with_part, with_weights
from nlpmeta.errors import NLPMetaError


class SplitBackbone:
    """Layers below ``layer`` and layers from there on, as two calls that together are the backbone's one.

    Raises:
        NLPMetaError: if the backbone is not made of one list of layers between embeddings and output.
    """

    def __init__(self, backbone: nn.Module, layer: int, *, check: bool = True) -> None:
        path = _path_of_layers(backbone, int(backbone.config.num_hidden_layers))  # type: ignore[union-attr,arg-type]
        layers = backbone.get_submodule(path)
        assert isinstance(layers, nn.ModuleList)  # noqa: S101  # what _path_of_layers looks for
        self.layer = layer
        self._prefix = f"{path}."
        self._lower = with_part(backbone, path, nn.ModuleList(layers[:layer]))
        upper = with_part(backbone, path, nn.ModuleList(layers[layer:]))
        self._upper = with_part(upper, "embeddings", _Given())
        if check:
            self._check(backbone)

    def lower(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """Hidden states ``(n, width, dim)`` below the cut of token ids ``(n, width)``."""
        states: Tensor = self._lower(input_ids=ids, attention_mask=mask).last_hidden_state
        return states

    def upper(self, states: Tensor, mask: Tensor | None, adapter: Mapping[str, Tensor] | None = None) -> Tensor:
        """What the whole backbone returns, from the hidden states at the cut; ``adapter`` replaces weights by name."""
        inputs = {"inputs_embeds": states, "attention_mask": mask}
        if not adapter:
            hidden: Tensor = self._upper(**inputs).last_hidden_state
            return hidden
        renamed = {self._renamed(name): weight for name, weight in adapter.items()}
        replaced: Tensor = with_weights(self._upper, renamed)(**inputs).last_hidden_state
        return replaced

    def _renamed(self, name: str) -> str:
        """The name in the upper part of a weight of the backbone."""
        number, _, rest = name.removeprefix(self._prefix).partition(".")
        return f"{self._prefix}{int(number) - self.layer}.{rest}"

    @torch.no_grad()
    def _check(self, backbone: nn.Module) -> None:
        device = next(backbone.parameters()).device
        ids = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]], device=device)
        mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], device=device).bool()
        whole = backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        parts = self.upper(self.lower(ids, mask), mask)
        if not torch.allclose(whole, parts, rtol=1e-4, atol=1e-4):
            raise NLPMetaError(f"{type(backbone).__name__} does more between its layers than can be cut apart.")


class _Given(nn.Module):
    """Stands where the embeddings were and returns the states that are given instead of them."""

    def forward(
        self, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None, **_: object
    ) -> Tensor | None:
        return inputs_embeds


def _path_of_layers(backbone: nn.Module, depth: int) -> str:
    lists = {name: module for name, module in backbone.named_modules() if isinstance(module, nn.ModuleList)}
    found = [str(name) for name, module in lists.items() if len(module) == depth]
    if len(found) != 1 or not hasattr(backbone, "embeddings"):
        raise NLPMetaError(
            f"The lower layers of {type(backbone).__name__} cannot be cached: it has no embeddings then one list "
            f"of {depth} layers. Leave lower_states off."
        )
    return found[0]
