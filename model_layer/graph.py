"""The encoder as an ONNX graph, written directly: token ids in, pooled and normalized vectors out, no mask anywhere.

model.onnx   in   `input_ids`    int64   [batch, tokens]   texts of equal length, special tokens included
             out  `dense`        float32 [batch, hidden]   pooled (CLS or mean) and L2-normalized, eps 1e-12
                  `token_states` float32 [batch, tokens, hidden]   the last hidden state, copied if fetched

No mask, because onnxruntime's attention then never writes the scores down (1.4 GB instead of 9.8 for 8,192 tokens);
Add and LayerNormalization apart, because the fused SkipLayerNormalization is ten times slower at 512×1024.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from handler.engine.manifest import GRAPH, WEIGHTS
from model_layer import quantize
from model_layer.catalog import Geometry, Model
from model_layer.sources import Source, layer_prefix, shapes
from model_layer.writer import MICROSOFT, Writer

WORDS, POSITIONS = "word_embeddings", "position_embeddings"
FIRST_POSITION = "first_position"
# Of one encoder layer: matrices that read the same states, which are quantized together or not at all.
GROUPS = (
    ("attention.self.query", "attention.self.key", "attention.self.value"),
    ("attention.output.dense",),
    ("intermediate.dense",),
    ("output.dense",),
)

# By a matrix's name: what its input channels are divided by before they are quantized, float32 [channels].
Factors = Mapping[str, npt.NDArray[np.float32]]


def unquantized(model: Model) -> tuple[str, ...]:
    """The matrices and tables that stay in float32 in int8: those the catalog lists, and what reads the same states.

    Raises ValueError where the catalog lists one that the model has not.
    """
    layers = [
        [tuple(layer_prefix(n) + name for name in group) for group in GROUPS] for n in range(model.geometry.layers)
    ]
    groups = [(WORDS,), (POSITIONS,), *(group for layer in layers for group in layer)]
    if unknown := set(model.unquantized).difference(*groups):
        raise ValueError(f"{model.id} has no matrix {', '.join(sorted(unknown))} to leave in float32.")
    return tuple(name for group in groups if not set(group).isdisjoint(model.unquantized) for name in group)


def write(
    source: Source,
    model: Model,
    folder: Path,
    smoothing: Factors | None,
    progress: Callable[[str], None],
) -> None:
    """Write GRAPH and WEIGHTS into the folder: in int8 with these factors, or in fp32 where `smoothing` is None."""
    geometry = model.geometry
    with Writer(folder / WEIGHTS) as graph:
        encoder = _Encoder(graph, source, model, smoothing)
        progress("embeddings")
        states = encoder.embeddings()
        for index in range(geometry.layers):
            progress(f"layer {index + 1}/{geometry.layers}")
            states = encoder.layer(index, states)
        graph.output("token_states", states)
        graph.output("dense", encoder.pooled(states))
        graph.save(
            folder / GRAPH,
            ("input_ids", TensorProto.INT64, ["batch", "tokens"]),
            ("dense", TensorProto.FLOAT, ["batch", geometry.hidden]),
            ("token_states", TensorProto.FLOAT, ["batch", "tokens", geometry.hidden]),
        )


class _Encoder:
    """BERT's post-norm encoder; XLM-R differs in its geometry alone."""

    def __init__(self, writer: Writer, source: Source, model: Model, smoothing: Factors | None) -> None:
        self.graph, self.source, self.geometry = writer, source, model.geometry
        self.int8, self._smoothing = smoothing is not None, smoothing or {}
        self._pooling, self._unquantized = model.pooling, unquantized(model)
        self._shapes = shapes(model.geometry)

    def embeddings(self) -> str:
        """Rows of words and of positions, the first token type folded into the latter, summed and normalized."""
        graph, shape = self.graph, self.geometry
        words = self._table(WORDS, shape.vocabulary)
        word_rows = self._rows(words, lambda table: graph.op("Gather", table, "input_ids"))

        first = graph.constant(FIRST_POSITION, [shape.first_position])
        tokens = graph.op("Shape", "input_ids", start=1, end=2)
        end, axis = graph.op("Add", tokens, first), graph.constant("row_axis", [0])
        positions = self._table(POSITIONS, shape.positions)
        position_rows = self._rows(positions, lambda table: graph.op("Slice", table, first, end, axis))
        return self._norm(graph.op("Add", word_rows, position_rows), "embeddings.LayerNorm")

    def layer(self, index: int, states: str) -> str:
        graph, prefix = self.graph, layer_prefix(index)
        query, key, value = self._linear(states, *(prefix + part for part in GROUPS[0]))
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
        return graph.normalized(vector)

    def _table(self, name: str, rows: int) -> list[str]:
        """Names of a table's arrays: float32 rows, or int8 rows and their scales."""
        hidden, graph = self.geometry.hidden, self.graph
        table = self.source.tensor(f"embeddings.{name}.weight", rows, hidden)
        if name == POSITIONS:
            kinds = self.geometry.token_types
            table = table + self.source.tensor("embeddings.token_type_embeddings.weight", kinds, hidden)[0]
        if not self.int8 or name in self._unquantized:
            return [graph.weight(name, table)]
        values, scales = quantize.table(table)
        return [graph.weight(name, values), graph.weight(f"{name}.scale", scales)]

    def _rows(self, table: list[str], pick: Callable[[str], str]) -> str:
        rows = pick(table[0])
        if len(table) == 1:
            return rows
        return self.graph.op("Mul", self.graph.op("Cast", rows, to=TensorProto.FLOAT), pick(table[1]))

    def _linear(self, states: str, *names: str) -> list[str]:
        """The products of the states with matrices that read the same. In int8 the states are quantized once for all of
        them, with one scale and zero point for the whole text."""
        graph = self.graph
        if not self.int8 or names[0] in self._unquantized:
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


@dataclass(frozen=True)
class Encoder:
    """What a written graph is. Its geometry has one token type: the first, which is folded into the positions."""

    geometry: Geometry
    pooling: str
    precision: str  # "int8" or "fp32"
    float32: tuple[str, ...]  # matrices and tables that an int8 graph has in float32, in the graph's order


def read(folder: Path) -> Encoder:
    """What the folder's GRAPH is. Raises what onnx does of a damaged one, a LookupError of a foreign one."""
    graph = onnx.load(folder / GRAPH, load_external_data=False).graph
    arrays = {each.name: each for each in graph.initializer}
    nodes = {node.op_type: node for node in graph.node}
    products = {node.input[1] for node in graph.node if node.op_type in ("MatMul", "MatMulIntegerToFloat")}
    names = [name for name in arrays if name in products | {WORDS, POSITIONS}]
    exact = tuple(name for name in names if arrays[name].data_type == TensorProto.FLOAT)
    attributes = {
        each.name: each for kind in ("MultiHeadAttention", "LayerNormalization") for each in nodes[kind].attribute
    }
    (vocabulary, hidden), (positions, _) = arrays[WORDS].dims, arrays[POSITIONS].dims
    geometry = Geometry(
        vocabulary,
        hidden,
        heads=attributes["num_heads"].i,
        intermediate=arrays[f"{layer_prefix(0)}intermediate.dense"].dims[1],
        layers=sum(name.endswith("intermediate.dense") for name in names),
        positions=positions,
        first_position=int(onnx.numpy_helper.to_array(arrays[FIRST_POSITION])[0]),
        token_types=1,
        norm_epsilon=float(f"{attributes['epsilon'].f:.6g}"),  # kept in float32
    )
    precision = "fp32" if len(exact) == len(names) else "int8"
    return Encoder(
        geometry, "mean" if "ReduceMean" in nodes else "cls", precision, exact if precision == "int8" else ()
    )
