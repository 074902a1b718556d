"""What a written graph is, by the graph itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from handler.engine.manifest import GRAPH
from model_layer import cuda
from model_layer.arrays import POSITIONS, WORDS
from model_layer.catalog import Geometry
from model_layer.graph import FIRST_POSITION
from model_layer.sources import layer_prefix

_SCALED_BY_RUN = "DynamicQuantizeLinear"
_PRODUCTS = ("MatMul", "MatMulIntegerToFloat", cuda.PRODUCT_INT8)
_ATTENTION, _NORM = ("MultiHeadAttention", cuda.ATTENTION), ("LayerNormalization", cuda.NORM)
_MEAN = {"cpu": "ReduceMean", "cuda": "Equal"}  # the operator that is there only for the mean of a text's states


@dataclass(frozen=True)
class Encoder:
    """What a written graph is. Its geometry has one token type: the first, which is folded into the positions."""

    geometry: Geometry
    pooling: str
    target: str  # "cpu" or "cuda"
    precision: str  # "int8" or "fp32" for a CPU; "fp16" or "int8" for CUDA
    float32: tuple[str, ...]  # matrices and tables that another graph than fp32's has in float32, in the graph's order
    activation_scales: str | None  # "static" or "dynamic" in int8 for a CPU


def read(folder: Path) -> Encoder:
    """What the folder's GRAPH is. Raises what onnx does of a damaged one, a LookupError of a foreign one."""
    graph = onnx.load(folder / GRAPH, load_external_data=False).graph
    arrays = {each.name: each for each in graph.initializer}
    kinds = {node.op_type: node for node in nodes(graph)}
    target = "cuda" if cuda.ATTENTION in kinds else "cpu"
    products = {node.input[1] for node in graph.node if node.op_type in _PRODUCTS}
    names = [name for name in arrays if name in products | {WORDS, POSITIONS}]
    exact = tuple(name for name in names if arrays[name].data_type == TensorProto.FLOAT)
    attributes = {each.name: each for kind in (*_ATTENTION, *_NORM) if kind in kinds for each in kinds[kind].attribute}
    (vocabulary, hidden), (positions, _) = arrays[WORDS].dims, arrays[POSITIONS].dims
    geometry = Geometry(
        vocabulary,
        hidden,
        heads=attributes["num_heads"].i,
        intermediate=arrays[f"{layer_prefix(0)}intermediate.dense.bias"].dims[0],
        layers=sum(name.endswith("intermediate.dense") for name in names),
        positions=positions,
        first_position=int(onnx.numpy_helper.to_array(arrays[FIRST_POSITION])[0]),
        token_types=1,
        norm_epsilon=float(f"{attributes['epsilon'].f:.6g}"),  # kept in float32
    )
    pooling = "mean" if _MEAN[target] in kinds else "cls"
    if target == "cuda":
        return Encoder(geometry, pooling, target, "int8" if cuda.PRODUCT_INT8 in kinds else "fp16", exact, None)
    if len(exact) == len(names):
        return Encoder(geometry, pooling, target, "fp32", (), None)
    return Encoder(geometry, pooling, target, "int8", exact, "dynamic" if _SCALED_BY_RUN in kinds else "static")


def shares_runs(folder: Path) -> bool:
    """Whether a vector does not depend on which texts share its run: nothing is scaled by all that is in it."""
    graph = onnx.load(folder / GRAPH, load_external_data=False).graph
    return all(node.op_type != _SCALED_BY_RUN for node in nodes(graph))


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of the graphs inside it."""
    for node in graph.node:
        yield node
        for each in node.attribute:
            if each.type == onnx.AttributeProto.GRAPH:
                yield from nodes(each.g)
