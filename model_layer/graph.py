"""The encoder as an ONNX graph, written directly: token ids in, pooled and normalized vectors out, no mask anywhere.

model.onnx   in   `input_ids`    int64   [batch, tokens]   texts of equal length, special tokens included
             out  `dense`        float32 [batch, hidden]   pooled (CLS or mean) and L2-normalized, eps 1e-12
                  `token_states` float32 [batch, tokens, hidden]   the last hidden state, copied if fetched
heads.onnx   in   `token_states`
             out  `sparse`       float32 [batch, tokens]   relu(H·w + b), a weight for every token
                  `multi_vector` float32 [batch, tokens - 1, hidden]   rows of L(H) but the first, L2-normalized

The heads are a graph of their own, because onnxruntime computes every output of a graph, asked for or not.

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
from model_layer.catalog import Geometry, Model
from model_layer.sources import Source, layer_prefix, shapes

GRAPH, WEIGHTS = "model.onnx", "weights.bin"
HEADS, HEADS_WEIGHTS = "heads.onnx", "heads.bin"
PAGE = 4096  # what mmap can map; onnxruntime maps an array where its offset is a multiple
MICROSOFT = "com.microsoft"

# By a matrix's name: what its input channels are divided by before they are quantized, float32 [channels].
Factors = Mapping[str, npt.NDArray[np.float32]]


class _Writer:
    """Collects nodes, and writes each array to the weights file the moment it is made: one is in memory at a time."""

    def __init__(self, weights: Path) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._location = weights.name
        self._file = weights.open("wb")
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
        for key, value in {"location": self._location, "offset": self._file.tell(), "length": array.nbytes}.items():
            tensor.external_data.add(key=key, value=str(value))
        array.astype(array.dtype.newbyteorder("<"), order="C", copy=False).tofile(self._file)
        self.initializers.append(tensor)
        return name

    def close(self) -> None:
        self._file.close()


def write(
    source: Source,
    model: Model,
    folder: Path,
    smoothing: Factors | None,
    progress: Callable[[str], None],
) -> None:
    """Write GRAPH and WEIGHTS into the folder: in int8 with these factors, or in fp32 where `smoothing` is None."""
    geometry, writer = model.geometry, _Writer(folder / WEIGHTS)
    try:
        encoder = _Encoder(writer, source, model, smoothing)
        progress("embeddings")
        states = encoder.embeddings()
        for index in range(geometry.layers):
            progress(f"layer {index + 1}/{geometry.layers}")
            states = encoder.layer(index, states)
        writer.nodes.append(helper.make_node("Identity", [states], ["token_states"]))
        writer.nodes.append(helper.make_node("Identity", [encoder.pooled(states)], ["dense"]))
    finally:
        writer.close()
    outputs: dict[str, list[Any]] = {
        "dense": ["batch", geometry.hidden],
        "token_states": ["batch", "tokens", geometry.hidden],
    }
    _save(writer, folder / GRAPH, ("input_ids", TensorProto.INT64, ["batch", "tokens"]), outputs)


def write_heads(source: Source, geometry: Geometry, folder: Path) -> None:
    """Write HEADS into the folder, and its weights, in fp32, beside it: 4 MB at a hidden size of 1,024."""
    hidden, writer = geometry.hidden, _Writer(folder / HEADS_WEIGHTS)
    try:
        arrays = {
            f"{head}.{part}": source.tensor(f"{head}.{part}", *shape)
            for head, rows in (("sparse_linear", 1), ("colbert_linear", hidden))
            for part, shape in (("weight", (rows, hidden)), ("bias", (rows,)))
        }

        def linear(states: str, head: str) -> str:
            product = writer.op("MatMul", states, writer.weight(f"{head}.weight", arrays[f"{head}.weight"].T))
            return writer.op("Add", product, writer.weight(f"{head}.bias", arrays[f"{head}.bias"]))

        last = writer.constant("last_axis", [-1])
        weights = writer.op("Relu", linear("token_states", "sparse_linear"))
        writer.nodes.append(helper.make_node("Squeeze", [weights, last], ["sparse"]))
        one, end = writer.constant("one", [1]), writer.constant("end", [np.iinfo(np.int64).max])
        rest = writer.op("Slice", "token_states", one, end, one)
        rows = _normalized(writer, linear(rest, "colbert_linear"))
        writer.nodes.append(helper.make_node("Identity", [rows], ["multi_vector"]))
    finally:
        writer.close()
    outputs: dict[str, list[Any]] = {"sparse": ["batch", "tokens"], "multi_vector": ["batch", "rows", hidden]}
    _save(writer, folder / HEADS, ("token_states", TensorProto.FLOAT, ["batch", "tokens", hidden]), outputs)


def _save(writer: _Writer, path: Path, given: tuple[str, int, list[Any]], outputs: dict[str, list[Any]]) -> None:
    graph = helper.make_graph(
        writer.nodes,
        path.stem,
        [helper.make_tensor_value_info(*given)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        writer.initializers,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="emblet")
    path.write_bytes(model.SerializeToString(deterministic=True))


def _normalized(writer: _Writer, rows: str) -> str:
    """Each row over its length, which counts as 1e-12 at least: torch's `normalize`."""
    length = writer.op("ReduceL2", rows, writer.constant("vector_axis", [-1]), keepdims=1)
    return writer.op("Div", rows, writer.op("Max", length, writer.constant("floor", [1e-12], np.float32)))


class _Encoder:
    """BERT's post-norm encoder; XLM-R differs in its geometry alone."""

    def __init__(self, writer: _Writer, source: Source, model: Model, smoothing: Factors | None) -> None:
        self.graph, self.source, self.geometry = writer, source, model.geometry
        self.int8, self._smoothing = smoothing is not None, smoothing or {}
        self._pooling, self._unquantized = model.pooling, model.unquantized
        self._shapes = shapes(model.geometry)

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

    def pooled(self, states: str) -> str:
        graph, axis = self.graph, self.graph.constant("token_axis", [1])
        if self._pooling == "cls":
            zero, one = graph.constant("zero", [0]), graph.constant("one", [1])
            vector = graph.op("Squeeze", graph.op("Slice", states, zero, one, axis), axis)
        else:
            vector = graph.op("ReduceMean", states, axis, keepdims=0)
        return _normalized(graph, vector)

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
        if not self.int8 or any(name in self._unquantized for name in names):
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
