"""ONNX graphs: modules traced, shared weights kept once, tables kept in four bits, layers on request in eight."""

import hashlib
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpmeta.encoder.files import Pooling
from nlpmeta.encoder.packaged.e5s1 import BLOCK, four_bit_blocks
from nlpmeta.errors import ModelFolderError
from nlpmeta.storage.files import remove_file

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto
    from transformers import PreTrainedModel

_SMALLEST_TABLE = 1000  # rows; below, nothing is won
_MIGRATION = 0.6
"""How much of the range of activations goes into the weights, from 0 to 1. Of 0.6, 0.65, 0.7 and 0.75 it brings the
embeddings of the starter corpus nearest to those of float32."""
_SMALLEST_RANGE = 1e-5


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


def padded(tokens: list[list[int]], blank: int, *, n_known: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids, filled up with ``blank``, and mask, both ``(n, longest)``.

    Raises:
        ModelFolderError: if a text has no token, or one that an encoder with ``n_known`` tokens does not know.
    """
    width = max(len(ids) for ids in tokens)
    ids = torch.tensor([row + [blank] * (width - len(row)) for row in tokens], device="cpu")
    if min(len(row) for row in tokens) == 0:
        raise ModelFolderError("The tokenizer of this encoder returns no token for a text; it is damaged.")
    if int(ids.max()) >= n_known:
        raise ModelFolderError(f"The tokenizer gives the token {int(ids.max())}; the encoder knows {n_known} tokens.")
    lengths = torch.tensor([len(row) for row in tokens], device="cpu").unsqueeze(1)
    return ids.to(device), (torch.arange(width, device="cpu") < lengths).to(device)


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


def write_graph(
    module: nn.Module,
    path: Path,
    *,
    output: str,
    int8: bool = False,
    typical: Sequence[Sequence[int]] = (),
    in_one_file: bool = False,
) -> None:
    """Write what ``module`` does with ``input_ids`` and ``attention_mask`` ``(n, width)`` as an ONNX graph.

    Weights that are there several times are kept once. A table of embeddings whose rows are exactly blocks of four
    bits, as in the packaged encoder, is kept in four bits: the same numbers in a sixth of the bytes.

    Args:
        module: on the CPU, in evaluation mode; its encoders use the attention implementation ``eager``.
        path: of the graph.
        output: the name of what comes out.
        int8: whether the layers' weights are kept in eight bits, a scale for each channel.
        typical: the tokens of some texts, at which ``int8`` looks for channels with large activations (``smooth``).
        in_one_file: whether the weights are in the graph's file; else they lie beside it, under its name and ``.data``.
    """
    import onnx

    traced = path.with_name(f"traced-{path.name}")
    with _quiet():
        _trace(module, traced, output)
        model = onnx.load(str(traced))
        share_weights(model)
        pack_tables(model)
        if int8:
            smooth(model, traced, typical)
            share_weights(model)  # where views do not differ, their smoothed weights do not either
            model = _quantised(model, traced)
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


def smooth(model: "ModelProto", place: Path, typical: Sequence[Sequence[int]]) -> None:
    """Make the inputs of linear layers easier to round: channels are divided by numbers that go into the weights.

    All activations of a batch share one scale in int8, so that a few large channels take the precision of all others.
    The graph computes the same as before but for rounding.

    Source: SmoothQuant, Xiao et al., ICML 2023 (arXiv:2211.10438), equations 3 and 4. We divide by a node of its own,
    as what a layer norm gives in BERT is also added to later activations, and before the second layer of a
    feed-forward block too, where rounding does most harm.

    Args:
        model: in float32.
        place: where a copy may be written for a moment, its name the start of a name.
        typical: the tokens of texts; without any, nothing is changed.
    """
    from onnx import helper, numpy_helper

    weights = {each.name: each for each in model.graph.initializer}
    layers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            layers.setdefault(node.input[0], []).append(node)
    if not typical or not layers:
        return
    largest = _largest_inputs(model, place, list(layers), typical)
    for number, (name, users) in enumerate(layers.items()):
        found = {node.input[1]: numpy_helper.to_array(weights[node.input[1]]) for node in users}
        widest = np.max([np.abs(weight).max(1) for weight in found.values()], axis=0)
        ranges, widest = (np.maximum(each, _SMALLEST_RANGE) for each in (largest[name], widest))
        over = (ranges**_MIGRATION / widest ** (1 - _MIGRATION)).astype(np.float32)
        at = next(i for i, node in enumerate(model.graph.node) if node in users)
        factor, smoothed = f"smooth/{number}", f"{name}/smoothed"
        model.graph.initializer.append(numpy_helper.from_array(1 / over, factor))
        for weight, numbers in found.items():
            model.graph.initializer.append(numpy_helper.from_array(numbers * over[:, None], f"{weight}/{number}"))
        for node in users:
            node.input[:] = [smoothed, f"{node.input[1]}/{number}"]
        model.graph.node.insert(at, helper.make_node("Mul", [name, factor], [smoothed], name=f"{name}/smooth"))
    _drop_unused(model)


def _largest_inputs(
    model: "ModelProto", place: Path, names: Sequence[str], typical: Iterable[Sequence[int]]
) -> "dict[str, NDArray[np.float32]]":
    """The largest absolute activation of each channel, by the name of a tensor ``(n, width, channels)``."""
    import onnx
    from onnxruntime import InferenceSession

    probe, seen = place.with_name(f"{place.name}.probe"), onnx.ModelProto()
    seen.CopyFrom(model)
    seen.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    onnx.save(seen, str(probe), save_as_external_data=True, location=f"{probe.name}.data")
    session = InferenceSession(str(probe), providers=["CPUExecutionProvider"])
    largest: dict[str, NDArray[np.float32]] = {}
    for tokens in typical:
        ids = np.array([tokens], dtype=np.int64)
        found = session.run(list(names), {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        for name, values in zip(names, found, strict=True):
            most = np.abs(values).max(axis=tuple(range(values.ndim - 1)))
            largest[name] = np.maximum(largest.get(name, most), most)
    return largest


def _drop_unused(model: "ModelProto") -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = [each for each in model.graph.initializer if each.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


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
