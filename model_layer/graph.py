"""The encoder as an ONNX graph, written directly: token ids in, pooled and normalized vectors out, no mask anywhere.

model.onnx   in   `input_ids`    int64   [tokens]   texts one after another, special tokens included
                  `lengths`      int64   [texts]    how many of the tokens are each text's
             out  `dense`        float32 [texts, hidden]   pooled (CLS or mean) and L2-normalized, eps 1e-12
                  `token_states` float32 [1, tokens, hidden]   the last hidden state, copied if fetched

No mask, because onnxruntime's attention then never writes the scores down (1.4 GB instead of 9.8 for 8,192 tokens);
Add and LayerNormalization apart, because the fused SkipLayerNormalization is ten times slower at 512×1024.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from handler.engine.manifest import GRAPH, WEIGHTS
from model_layer import quantize
from model_layer.arrays import POSITIONS, WORDS, Arrays
from model_layer.catalog import Geometry, Model
from model_layer.row import ROW_AXIS, Row
from model_layer.sources import Source, layer_prefix
from model_layer.writer import MICROSOFT, Writer

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


@dataclass(frozen=True)
class Quantization:
    """How that is quantized which the matrices read. `scales`, by a matrix's name; None: a run has one scale for all
    its tokens, by what they are, so that a vector would depend on which texts share the run."""

    factors: Factors
    scales: Mapping[str, quantize.Scale] | None


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
    quantization: Quantization | None,
    progress: Callable[[str], None],
) -> None:
    """Write GRAPH and WEIGHTS into the folder: in int8 with this quantization, or in fp32 without any."""
    geometry = model.geometry
    with Writer(folder / WEIGHTS) as graph:
        encoding = Encoding(graph, source, model, quantization)
        progress("embeddings")
        states = encoding.embeddings()
        for index in range(geometry.layers):
            progress(f"layer {index + 1}/{geometry.layers}")
            states = encoding.layer(index, states)
        graph.output("token_states", states)
        graph.output("dense", encoding.pooled(states))
        save(graph, folder, geometry)


def save(graph: Writer, folder: Path, geometry: Geometry) -> None:
    """Write GRAPH, which has these inputs and outputs."""
    graph.save(
        folder / GRAPH,
        [("input_ids", TensorProto.INT64, ["tokens"]), ("lengths", TensorProto.INT64, ["texts"])],
        [
            ("dense", TensorProto.FLOAT, ["texts", geometry.hidden]),
            ("token_states", TensorProto.FLOAT, [1, "tokens", geometry.hidden]),
        ],
    )


class Encoding:
    """BERT's post-norm encoder; XLM-R differs in its geometry alone."""

    def __init__(self, writer: Writer, source: Source, model: Model, quantization: Quantization | None) -> None:
        self.graph, self.arrays, self.geometry = writer, Arrays(source, model.geometry), model.geometry
        self._quantization = quantization
        self._factors = quantization.factors if quantization else {}
        self.pooling, self._unquantized = model.pooling, unquantized(model)

    @cached_property
    def _row(self) -> Row:
        return Row(self.graph, "lengths")

    @cached_property
    def _token_axis(self) -> str:
        return self.graph.constant("token_axis", [1])

    def embeddings(self) -> str:
        """Rows of words and of positions, the first token type folded into the latter, summed and normalized."""
        graph = self.graph
        words = self._rows(self.table(WORDS), "input_ids")
        first = graph.constant(FIRST_POSITION, [self.geometry.first_position])
        positions = self._rows(self.table(POSITIONS), self._row.positions("input_ids", first))
        states = self.norm(graph.op("Add", words, positions), "embeddings.LayerNorm")
        return graph.op("Unsqueeze", states, graph.constant(ROW_AXIS, [0]))  # as attention takes them

    def layer(self, index: int, states: str) -> str:
        graph, prefix = self.graph, layer_prefix(index)
        attended = self.attention(*self._linear(states, *(prefix + part for part in GROUPS[0])))
        (attended,) = self._linear(attended, f"{prefix}attention.output.dense")
        states = self.norm(graph.op("Add", attended, states), f"{prefix}attention.output.LayerNorm")

        (wide,) = self._linear(states, f"{prefix}intermediate.dense")
        wide = graph.op("Gelu", wide, domain=MICROSOFT)
        (narrow,) = self._linear(wide, f"{prefix}output.dense")
        return self.norm(graph.op("Add", narrow, states), f"{prefix}output.LayerNorm")

    def pooled(self, states: str) -> str:
        graph = self.graph
        if self.pooling == "cls":
            rows = graph.op("Gather", states, self._row.starts, axis=1)
        else:
            rows = self._row.each(lambda text: graph.op("ReduceMean", self._of(text, states), self._token_axis), axis=1)
        return graph.normalized(graph.op("Squeeze", rows, ROW_AXIS))

    def attention(self, *states: str) -> str:
        def attention(*each: str) -> str:
            return self.graph.op("MultiHeadAttention", *each, domain=MICROSOFT, num_heads=self.geometry.heads)

        return self._row.whole_or_each(
            lambda: attention(*states),
            lambda text: attention(*(self._of(text, each) for each in states)),
            axis=1,
            shape=[1, "tokens", self.geometry.hidden],
        )

    def _of(self, text: str, states: str) -> str:
        """A text's part of the states."""
        start, end = self._row.bounds(text)
        return self.graph.op("Slice", states, start, end, self._token_axis)

    def table(self, name: str) -> list[str]:
        """Names of a table's arrays: float32 rows, or int8 rows and their scales."""
        graph, table = self.graph, self.arrays.table(name)
        if self._quantization is None or name in self._unquantized:
            return [graph.weight(name, table)]
        values, scales = quantize.table(table)
        return [graph.weight(name, values), graph.weight(f"{name}.scale", scales)]

    def _rows(self, table: list[str], numbers: str) -> str:
        rows, *scales = (self.graph.op("Gather", array, numbers) for array in table)
        if not scales:
            return rows
        return self.graph.op("Mul", self.graph.op("Cast", rows, to=TensorProto.FLOAT), *scales)

    def _linear(self, states: str, *names: str) -> list[str]:
        """The products of the states with matrices that read the same. In int8 the states are quantized once for all of
        them, with one scale and zero point for all tokens."""
        graph, first = self.graph, names[0]
        if self._quantization is None or first in self._unquantized:
            return [graph.op("Add", graph.op("MatMul", states, self._matrix(name)), self._bias(name)) for name in names]
        factors = self._factors.get(first)
        if factors is not None:
            states = graph.op("Mul", states, graph.weight(f"{first}.smoothing", 1 / factors))
        if self._quantization.scales is None:
            values, scale, zero = graph.node("DynamicQuantizeLinear", states, outputs=3)
        else:
            step, origin = self._quantization.scales[first]
            scale = graph.constant(f"{first}.activations.scale", float(step), np.float32)
            zero = graph.constant(f"{first}.activations.zero", int(origin), np.uint8)
            values = graph.op("QuantizeLinear", states, scale, zero)
        return [self._int8_product(values, scale, zero, name) for name in names]

    def _int8_product(self, values: str, scale: str, zero: str, name: str) -> str:
        matrix = self.arrays.weight(name)
        if (factors := self._factors.get(name)) is not None:
            matrix = matrix * factors
        integers, scales = quantize.matrix(matrix)
        weight = self.graph.weight(name, integers.T)
        weight_scale = self.graph.weight(f"{name}.scale", scales[:, 0])
        inputs = (values, weight, scale, weight_scale, zero, "", self._bias(name))
        return self.graph.op("MatMulIntegerToFloat", *inputs, domain=MICROSOFT)

    def _matrix(self, name: str) -> str:
        return self.graph.weight(name, self.arrays.weight(name).T)

    def _bias(self, name: str) -> str:
        return self.graph.weight(f"{name}.bias", self.arrays.bias(name))

    def norm(self, states: str, name: str) -> str:
        scale = self.graph.weight(f"{name}.weight", self.arrays.weight(name))
        epsilon = self.geometry.norm_epsilon
        return self.graph.op("LayerNormalization", states, scale, self._bias(name), epsilon=epsilon)
