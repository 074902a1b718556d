"""The encoder as an ONNX graph, written directly: token ids in, pooled and normalized vectors out, no mask anywhere.

Inputs   `input_ids`    int64   [batch, tokens]   texts of equal length, special tokens included
Outputs  `dense`        float32 [batch, hidden]   pooled (CLS or mean) and L2-normalized, eps 1e-12
         `token_states` float32 [batch, tokens, hidden]   the last hidden state, computed anyway, copied if fetched

No mask, because onnxruntime's attention then never writes the scores down (1.4 GB instead of 9.8 for 8,192 tokens);
Add and LayerNormalization apart, because the fused SkipLayerNormalization is ten times slower at 512×1024.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from model_layer import quantize
from model_layer.catalog import Geometry
from model_layer.sources import Source, layer_prefix, shapes

GRAPH, WEIGHTS = "model.onnx", "weights.bin"
PAGE = 4096  # what mmap can map; onnxruntime maps an array where its offset is a multiple
MICROSOFT = "com.microsoft"

# By a matrix's name: what its input channels are divided by before they are quantized, float32 [channels].
Factors = Mapping[str, npt.NDArray[np.float32]]


class _Writer:
    """Collects nodes, and writes each array to the weights file the moment it is made: one is in memory at a time."""

    def __init__(self, folder: Path) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._file = (folder / WEIGHTS).open("wb")
        self._names = 0

    def node(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> list[str]:
        self._names += 1
        names = [f"{kind}_{self._names}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        return self.node(kind, *inputs, domain=domain, **attributes)[0]

    def constant(self, name: str, values: list[int] | list[float], dtype: type[np.generic] = np.int64) -> str:
        """A few numbers inside the graph file, where shape inference can see them."""
        self.initializers.append(onnx.numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def weight(self, name: str, array: npt.NDArray[np.generic]) -> str:
        self._file.write(b"\0" * (-self._file.tell() % PAGE))
        tensor = TensorProto(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": WEIGHTS, "offset": self._file.tell(), "length": array.nbytes}.items():
            tensor.external_data.add(key=key, value=str(value))
        array.astype(array.dtype.newbyteorder("<"), order="C", copy=False).tofile(self._file)
        self.initializers.append(tensor)
        return name

    def close(self) -> None:
        self._file.close()


def write(
    source: Source,
    geometry: Geometry,
    *,
    pooling: str,
    folder: Path,
    smoothing: Factors | None,
    progress: Callable[[str], None],
) -> None:
    """Write GRAPH and WEIGHTS into the folder: in int8 with these factors, or in fp32 where `smoothing` is None.

    `pooling`: "cls" or "mean".
    """
    writer = _Writer(folder)
    try:
        encoder = _Encoder(writer, source, geometry, smoothing)
        progress("embeddings")
        states = encoder.embeddings()
        for index in range(geometry.layers):
            progress(f"layer {index + 1}/{geometry.layers}")
            states = encoder.layer(index, states)
        writer.nodes.append(helper.make_node("Identity", [states], ["token_states"]))
        encoder.pool(states, pooling)
    finally:
        writer.close()
    floats, hidden = TensorProto.FLOAT, geometry.hidden
    graph = helper.make_graph(
        writer.nodes,
        "encoder",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [
            helper.make_tensor_value_info("dense", floats, ["batch", hidden]),
            helper.make_tensor_value_info("token_states", floats, ["batch", "tokens", hidden]),
        ],
        writer.initializers,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="emblet")
    (folder / GRAPH).write_bytes(model.SerializeToString(deterministic=True))


class _Encoder:
    """BERT's post-norm encoder; XLM-R differs in its geometry alone."""

    def __init__(self, writer: _Writer, source: Source, geometry: Geometry, smoothing: Factors | None) -> None:
        self.graph, self.source, self.geometry = writer, source, geometry
        self.int8, self._smoothing = smoothing is not None, smoothing or {}
        self._shapes = shapes(geometry)

    def embeddings(self) -> str:
        """Rows of words and of positions, the first token type folded into the latter, summed and normalized."""
        graph, shape = self.graph, self.geometry
        words = self._table("word_embeddings", shape.vocabulary)
        word_rows = self._rows(words, lambda table: graph.op("Gather", table, "input_ids"))

        first = graph.constant("first_position", [shape.first_position])
        tokens = graph.op("Shape", "input_ids", start=1, end=2)
        end, axis = graph.op("Add", tokens, first), graph.constant("row_axis", [0])
        positions = self._table("position_embeddings", shape.positions)
        position_rows = self._rows(positions, lambda table: graph.op("Slice", table, first, end, axis))
        return self._norm(graph.op("Add", word_rows, position_rows), "embeddings.LayerNorm")

    def layer(self, index: int, states: str) -> str:
        graph, prefix = self.graph, layer_prefix(index)
        parts = [f"{prefix}attention.self.{part}" for part in ("query", "key", "value")]
        query, key, value = self._linear(states, *parts)
        heads = self.geometry.heads
        attended = graph.op("MultiHeadAttention", query, key, value, domain=MICROSOFT, num_heads=heads)
        (attended,) = self._linear(attended, f"{prefix}attention.output.dense")
        states = self._norm(graph.op("Add", attended, states), f"{prefix}attention.output.LayerNorm")

        (wide,) = self._linear(states, f"{prefix}intermediate.dense")
        wide = graph.op("Gelu", wide, domain=MICROSOFT)
        (narrow,) = self._linear(wide, f"{prefix}output.dense")
        return self._norm(graph.op("Add", narrow, states), f"{prefix}output.LayerNorm")

    def pool(self, states: str, pooling: str) -> None:
        graph, axis = self.graph, self.graph.constant("token_axis", [1])
        if pooling == "cls":
            zero, one = graph.constant("zero", [0]), graph.constant("one", [1])
            pooled = graph.op("Squeeze", graph.op("Slice", states, zero, one, axis), axis)
        else:
            pooled = graph.op("ReduceMean", states, axis, keepdims=0)
        length = graph.op("ReduceL2", pooled, graph.constant("vector_axis", [-1]), keepdims=1)
        floor = graph.constant("floor", [1e-12], np.float32)
        graph.nodes.append(helper.make_node("Div", [pooled, graph.op("Max", length, floor)], ["dense"]))

    def _table(self, name: str, rows: int) -> list[str]:
        """Names of a table's arrays: float32 rows, or int8 rows and their scales."""
        hidden, graph = self.geometry.hidden, self.graph
        table = self.source.tensor(f"embeddings.{name}.weight", rows, hidden)
        if name == "position_embeddings":
            kinds = 1 if self.geometry.first_position else 2  # XLM-R has one token type, BERT two
            table = table + self.source.tensor("embeddings.token_type_embeddings.weight", kinds, hidden)[0]
        if not self.int8:
            return [graph.weight(name, table)]
        values, scales = quantize.table(table)
        return [graph.weight(name, values), graph.weight(f"{name}.scale", scales)]

    def _rows(self, table: list[str], pick: Callable[[str], str]) -> str:
        rows = pick(table[0])
        if not self.int8:
            return rows
        return self.graph.op("Mul", self.graph.op("Cast", rows, to=TensorProto.FLOAT), pick(table[1]))

    def _linear(self, states: str, *names: str) -> list[str]:
        """The products of the states with matrices that read the same. In int8 the states are quantized once for all of
        them, with one scale and zero point for the whole text."""
        graph = self.graph
        if not self.int8:
            return [graph.op("Add", graph.op("MatMul", states, self._matrix(name)), self._bias(name)) for name in names]
        factors = self._smoothing.get(names[0])
        if factors is not None:
            states = graph.op("Mul", states, graph.weight(f"{names[0]}.smoothing", 1 / factors))
        values, scale, zero = graph.node("DynamicQuantizeLinear", states, outputs=3)
        return [self._int8_product(values, scale, zero, name) for name in names]

    def _int8_product(self, values: str, scale: str, zero: str, name: str) -> str:
        matrix = self._tensor(f"{name}.weight")
        if (factors := self._smoothing.get(name)) is not None:
            matrix = matrix * factors
        integers, scales = quantize.matrix(matrix)
        weight = self.graph.weight(name, integers.T)
        weight_scale = self.graph.weight(f"{name}.scale", scales[:, 0])
        inputs = (values, weight, scale, weight_scale, zero, "", self._bias(name))
        return self.graph.op("MatMulIntegerToFloat", *inputs, domain=MICROSOFT)

    def _matrix(self, name: str) -> str:
        return self.graph.weight(name, self._tensor(f"{name}.weight").T)

    def _bias(self, name: str) -> str:
        return self.graph.weight(f"{name}.bias", self._tensor(f"{name}.bias"))

    def _norm(self, states: str, name: str) -> str:
        scale = self.graph.weight(f"{name}.weight", self._tensor(f"{name}.weight"))
        bias = self.graph.weight(f"{name}.bias", self._tensor(f"{name}.bias"))
        return self.graph.op("LayerNormalization", states, scale, bias, epsilon=self.geometry.norm_epsilon)

    def _tensor(self, name: str) -> npt.NDArray[np.float32]:
        if name.startswith("embeddings."):
            return self.source.tensor(name, self.geometry.hidden)
        return self.source.tensor(name, *self._shapes[name.split(".", 3)[3]])
