"""The graph for CUDA once more, in fp32 arithmetic on the same fp16 weights: for a text whose states leave fp16's range
of 65,504 on their way, of which the graph in fp16 makes no finite vector."""

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from handler.engine.manifest import FP32, GRAPH


def write(layer: Path) -> None:
    """Write FP32 beside the folder's GRAPH; they share WEIGHTS."""
    (layer / FP32).write_bytes(_wide(layer).SerializeToString(deterministic=True))


def faults(layer: Path) -> Iterator[str]:
    """What FP32, where the folder has one, is otherwise than its GRAPH makes it."""
    if (layer / FP32).exists() and onnx.load(layer / FP32, load_external_data=False) != _wide(layer):
        yield f"{FP32} is not {GRAPH} in fp32 arithmetic"


def _wide(layer: Path) -> ModelProto:
    model = onnx.load(layer / GRAPH, load_external_data=False)
    halves = {each.name for each in model.graph.initializer if each.data_type == TensorProto.FLOAT16}
    written = [*model.graph.node]
    del model.graph.node[:]
    for node in written:
        model.graph.node.extend(_widened(node, halves))
    return model


def _widened(node: NodeProto, halves: set[str]) -> Iterator[NodeProto]:
    """What stands in a node's place. No two nodes read the same array, but for tables, of which only rows are cast."""
    if node.op_type == "Gather" and node.input[0] in halves:
        [rows] = node.output
        node.output[0] = f"{rows}.fp16"
        yield from (node, _cast(node.output[0], rows))
        return
    for place, name in enumerate(node.input):
        if name in halves:
            node.input[place] = f"{name}.fp32"
            yield _cast(name, node.input[place])
    for each in node.attribute:
        if node.op_type == "Cast" and each.name == "to" and each.i == TensorProto.FLOAT16:
            each.i = TensorProto.FLOAT
    yield node


def _cast(name: str, to: str) -> NodeProto:
    return helper.make_node("Cast", [name], [to], to=TensorProto.FLOAT)
