"""ONNX graphs: modules traced, shared weights kept once, tables kept in four bits, layers on request in eight."""

import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpmeta.encoder.files import Pooling
from nlpmeta.encoder.packaged.e5s1 import BLOCK, four_bit_blocks
from nlpmeta.storage.files import remove_file

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto
    from transformers import PreTrainedModel

_SMALLEST_TABLE = 1000  # rows; below, nothing is won


def pooled(hidden: Tensor, mask: Tensor, pooling: Pooling, *, normalise: bool) -> Tensor:
    """One vector a text, ``(n, dim)``, of those of its tokens, ``(n, width, dim)``; ``mask`` marks the real ones.

    ``mean`` is over all real tokens, special ones included; ``cls`` and ``last`` are the first and the last of them.
    """
    if pooling == "mean":
        weights = mask.unsqueeze(2).to(hidden.dtype)
        vectors = (hidden * weights).sum(1) / weights.sum(1)
    else:
        real = mask.long()
        place = (real if pooling == "cls" else real * torch.arange(1, real.shape[1] + 1, device=real.device)).argmax(1)
        vectors = hidden.gather(1, place.view(-1, 1, 1).expand(-1, 1, hidden.shape[2])).squeeze(1)
    return F.normalize(vectors, dim=1) if normalise else vectors


class Embedder(nn.Module):
    """Token ids and mask ``(n, width)`` to embeddings ``(n, n_views * dim)``: the pooled tokens of each view."""

    def __init__(self, backbones: "Sequence[PreTrainedModel]", *, normalise: bool, pooling: Pooling = "mean") -> None:
        super().__init__()
        self.backbones, self.normalise, self.pooling = nn.ModuleList(backbones), normalise, pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        parts = []
        for backbone in self.backbones:
            hidden = backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            parts.append(pooled(hidden, attention_mask, self.pooling, normalise=self.normalise))
        return torch.cat(parts, dim=1)


def write_graph(module: nn.Module, path: Path, *, output: str, int8: bool = False, in_one_file: bool = False) -> None:
    """Write what ``module`` does with ``input_ids`` and ``attention_mask`` ``(n, width)`` as an ONNX graph.

    Weights that are there several times are kept once. A table of embeddings whose rows are exactly blocks of four
    bits, as in the packaged encoder, is kept in four bits: the same numbers in a sixth of the bytes.

    Args:
        module: on the CPU, in evaluation mode; its encoders use the attention implementation ``eager``.
        path: of the graph.
        output: the name of what comes out.
        int8: whether the layers' weights are kept in eight bits, a scale for each channel.
        in_one_file: whether the weights are in the graph's file; else they lie beside it, under its name and ``.data``.
    """
    import onnx

    traced = path.with_name(f"traced-{path.name}")
    with _quiet():
        _trace(module, traced, output)
        model = onnx.load(str(traced))
        share_weights(model)
        pack_tables(model)
        model = _quantised(model, traced) if int8 else model
        onnx.save(model, str(path), save_as_external_data=not in_one_file, location=f"{path.name}.data")
    for file in path.parent.glob(f"{traced.name}*"):
        remove_file(file)


def _trace(module: nn.Module, path: Path, output: str) -> None:
    example = torch.ones(2, 5, dtype=torch.long, device="cpu")
    names = ["input_ids", "attention_mask"]
    with torch.no_grad():  # tracing takes a fraction of a second where the other exporter takes twelve
        torch.onnx.export(
            module,
            (example, example.clone()),
            str(path),
            input_names=names,
            output_names=[output],
            dynamic_axes={name: {0: "texts", 1: "tokens"} for name in names} | {output: {0: "texts"}},
            dynamo=False,
        )


def _quantised(model: "ModelProto", place: Path) -> "ModelProto":
    """The graph with the weights of its layers in eight bits, a scale for each channel."""
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    whole, small = place.with_name(f"{place.name}.whole"), place.with_name(f"{place.name}.small")
    onnx.save(model, str(whole), save_as_external_data=True, location=f"{whole.name}.data")
    # Seven bits a weight: sums of products of eight saturate on processors without VNNI. A packed table gives float32,
    # which the quantizer cannot infer.
    options = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    kinds = ["MatMul", "Gemm", "Gather"]
    quantize_dynamic(whole, small, kinds, per_channel=True, reduce_range=True, extra_options=options)
    return onnx.load(str(small))


def share_weights(model: "ModelProto") -> None:
    """Keep one of each weight that several views have: all but those that adapters change."""
    first: dict[tuple[object, ...], str] = {}
    named: dict[str, str] = {}
    kept = []
    for weight in model.graph.initializer:  # small ones are kept otherwise than as raw bytes
        numbers = hashlib.sha256(weight.raw_data).digest() if weight.raw_data else weight.name
        named[weight.name] = first.setdefault((weight.data_type, tuple(weight.dims), numbers), weight.name)
        if named[weight.name] == weight.name:
            kept.append(weight)
    nodes = []
    for node in model.graph.node:
        node.input[:] = [named.get(each, each) for each in node.input]
        if node.op_type == "Identity" and node.input[0] in named:  # another name that the exporter gave a weight
            named[node.output[0]] = node.input[0]
        else:
            nodes.append(node)
    for field, some in ((model.graph.initializer, kept), (model.graph.node, nodes)):
        del field[:]
        field.extend(some)


def pack_tables(model: "ModelProto") -> None:
    """Keep the tables that rows are looked up in, where these are exactly blocks of four bits, as such."""
    from onnx import TensorProto, helper, numpy_helper

    for name in _tables(model):
        weight = next(each for each in model.graph.initializer if each.name == name)
        table = numpy_helper.to_array(weight)
        found = four_bit_blocks(table)
        if found is None:
            continue
        codes = TensorProto(name=f"{name}/codes", data_type=TensorProto.INT4, dims=table.shape)
        codes.raw_data = found[0].tobytes()
        scales = numpy_helper.from_array(found[1], f"{name}/scales")
        model.graph.initializer.remove(weight)
        model.graph.initializer.extend([codes, scales])
        for node in _users(model, name):
            node.op_type, node.domain = "GatherBlockQuantized", "com.microsoft"
            node.input[:] = [codes.name, node.input[1], scales.name]
            del node.attribute[:]
            facts = {"gather_axis": 0, "quantize_axis": 1, "block_size": BLOCK}
            node.attribute.extend(helper.make_attribute(key, value) for key, value in facts.items())
        if not any(each.domain == "com.microsoft" for each in model.opset_import):
            model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _tables(model: "ModelProto") -> list[str]:
    """The names of the large tables that nothing is done with but to look rows up."""
    large = [each.name for each in model.graph.initializer if len(each.dims) == 2 and each.dims[0] >= _SMALLEST_TABLE]
    return [name for name in large if all(each.op_type == "Gather" for each in _users(model, name))]


def _users(model: "ModelProto", name: str) -> "list[NodeProto]":
    return [node for node in model.graph.node if name in node.input]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter and the quantizer log and warn of."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
