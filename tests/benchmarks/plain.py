"""Our graph for peers that know no graph inside a graph: texts of equal length, `input_ids` int64 [batch, tokens].

All that treats tokens one by one is taken over node by node, and the weights stay where they are.
"""

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from model_layer.graph import POSITIONS
from model_layer.packing import COLUMN_AXIS, ROW_AXIS

_OF_ROWS = {"CumSum", "Sub", "Equal", "SequenceEmpty", "Loop", "ConcatFromSequence"}  # that divide a row into texts
_ZERO = "plain.zero"


def write(graph: Path, plain: Path) -> None:
    """Write the plain form of a layer's `model.onnx` beside it, in the same folder; its one output is `dense`."""
    model = onnx.load(graph, load_external_data=False)
    nodes = list(_plain(model.graph))
    read = {name for node in nodes for name in node.input}
    arrays = [each for each in model.graph.initializer if each.name in read]
    arrays.append(helper.make_tensor(_ZERO, TensorProto.INT64, [], [0]))
    built = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [each for each in model.graph.output if each.name == "dense"],
        arrays,
    )
    whole = helper.make_model(built, opset_imports=model.opset_import, ir_version=model.ir_version)
    plain.write_bytes(whole.SerializeToString())


def _plain(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    made = {output: node for node in graph.node for output in node.output}
    [states] = [node.input[0] for node in graph.node if list(node.output) == ["token_states"]]
    [positions] = [node.output[0] for node in graph.node if node.op_type == "Range"]
    for node in graph.node:
        kind, inputs, output = node.op_type, list(node.input), node.output[0]
        if kind in _OF_ROWS or COLUMN_AXIS in inputs or "lengths" in inputs or output == "token_states":
            continue
        if kind == "Gather" and inputs[0] == states:  # CLS of each text
            continue
        if kind == "If":  # attention of one text
            [alone] = [each.g.node for each in node.attribute if each.name == "then_branch"]
            [whole] = alone
            whole.output[0] = output
            yield whole
        elif kind == "Size":
            yield helper.make_node("Shape", inputs, [f"{output}.row"], start=1, end=2)
            yield helper.make_node("Squeeze", [f"{output}.row"], [output])
        elif kind == "Unsqueeze":
            yield helper.make_node("Identity", inputs[:1], [output])
        elif kind == "Squeeze" and ROW_AXIS in inputs:  # the pooled states
            if made[inputs[0]].op_type == "Gather":
                yield helper.make_node("Gather", [states, _ZERO], [output], axis=1)
            else:
                yield helper.make_node("ReduceMean", [states, "token_axis"], [output], keepdims=0)
        else:
            if kind == "Gather" and inputs[0].startswith(POSITIONS):
                node.input[1] = positions
            yield node
