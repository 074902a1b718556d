"""The encoder for onnxruntime's CUDA provider; its inputs and outputs are the CPU graph's (graph.py).

States, tables and products are fp16 (cuBLAS sums in fp32); pooling and normalization are fp32, and so are the sums of
the norms. Weights are fp16, or int8 in blocks that the provider makes fp16 again, for the length of a product. What is
otherwise than on a CPU, because the kernels are:

- PackedMultiHeadAttention reads the row of texts as it is: no padding, and no scores in memory. Query, key and value
  come apart: then it takes flash attention wherever that runs, which is fp16 on compute capability 8.0 and later. (Of
  one array for all three it takes another kernel while the longest text is short.) A T4, 7.5, gets the fused or the
  memory-efficient kernel. On a CPU it has none: see standin.py.
- SkipLayerNormalization, which on a CPU is slow, here reads and writes the states once for bias, sum and norm. It sums
  in fp32 if the session says so (`enable_skip_layer_norm_strict_mode`).
- Of attention's biases one is left. A softmax does not see the key's, which adds the same to all scores of a query. The
  value's, whose weights sum to one, comes out as it went in, and is added to the next matrix' own once and for all.
- No operator is a reduction, which onnxruntime does with cuDNN, for nothing else would need that: a mean's direction is
  a product's, and a vector of length one is an RMS norm's times a constant.
"""

import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from handler.engine.manifest import WEIGHTS
from model_layer import fp32, quantize
from model_layer.arrays import POSITIONS, WORDS, Arrays
from model_layer.catalog import Model
from model_layer.graph import FIRST_POSITION, GROUPS, save
from model_layer.offsets import Offsets
from model_layer.sources import Source, layer_prefix
from model_layer.writer import MICROSOFT, Writer

ATTENTION, NORM, PRODUCT_INT8 = "PackedMultiHeadAttention", "SkipLayerNormalization", "MatMulNBits"

_FLOOR = 1e-12  # of a vector's length, as torch's `normalize` has it


def write(source: Source, model: Model, folder: Path, weights: str, progress: Callable[[str], None]) -> None:
    """Write GRAPH, FP32 and WEIGHTS into the folder. `weights`: "fp16" or "int8"."""
    geometry = model.geometry
    with Writer(folder / WEIGHTS) as graph:
        encoding = _Encoding(graph, source, model, int8=weights == "int8")
        progress("embeddings")
        states = encoding.embeddings()
        for index in range(geometry.layers):
            progress(f"layer {index + 1}/{geometry.layers}")
            states = encoding.layer(index, states)
        exact = graph.op("Cast", states, to=TensorProto.FLOAT)
        graph.output("token_states", graph.op("Unsqueeze", exact, graph.constant("row_axis", [0])))
        graph.output("dense", encoding.pooled(states, exact))
        save(graph, folder, geometry)
    fp32.write(folder)


class _Encoding:
    def __init__(self, writer: Writer, source: Source, model: Model, *, int8: bool) -> None:
        self.graph, self.arrays, self.geometry = writer, Arrays(source, model.geometry), model.geometry
        self.pooling, self._int8 = model.pooling, int8

    @cached_property
    def _offsets(self) -> Offsets:
        return Offsets(self.graph, "input_ids", "lengths")

    def embeddings(self) -> str:
        """float16 [tokens, hidden], as all states are."""
        graph = self.graph
        first = graph.constant(FIRST_POSITION, [self.geometry.first_position], np.int32)
        positions = graph.op(
            "Gather", self._half(POSITIONS, self.arrays.table(POSITIONS)), self._offsets.positions(first)
        )
        return self._norm(self._words(), positions, "embeddings.LayerNorm")

    def layer(self, index: int, states: str) -> str:
        graph, prefix = self.graph, layer_prefix(index)
        query, key, value = (f"{prefix}{part}" for part in GROUPS[0])
        asked = graph.op("Add", self._product(states, query), self._bias(query))
        offsets = ("", self._offsets.by_token, self._offsets.cumulative)
        attended = graph.op(
            ATTENTION, asked, self._product(states, key), self._product(states, value), *offsets,
            domain=MICROSOFT, num_heads=self.geometry.heads,
        )  # fmt: skip
        dense = f"{prefix}attention.output.dense"
        bias = self.arrays.bias(dense) + self.arrays.weight(dense) @ self.arrays.bias(value)
        states = self._norm(self._product(attended, dense), states, f"{prefix}attention.output.LayerNorm", dense, bias)

        wide, narrow = f"{prefix}intermediate.dense", f"{prefix}output.dense"
        inner = graph.op("BiasGelu", self._product(states, wide), self._bias(wide), domain=MICROSOFT)
        bias = self.arrays.bias(narrow)
        return self._norm(self._product(inner, narrow), states, f"{prefix}output.LayerNorm", narrow, bias)

    def pooled(self, states: str, exact: str) -> str:
        """float32 [texts, hidden]; `exact`: the states in float32."""
        graph, hidden = self.graph, self.geometry.hidden
        if self.pooling == "cls":
            pooled = graph.op("Cast", graph.op("Gather", states, self._offsets.starts), to=TensorProto.FLOAT)
        else:
            pooled = graph.op("MatMul", graph.op("Cast", self._offsets.members, to=TensorProto.FLOAT), exact)
        scale = graph.weight("length_one", np.full(hidden, 1 / math.sqrt(hidden), np.float32))
        return graph.op("SimplifiedLayerNormalization", pooled, scale, axis=-1, epsilon=_FLOOR**2 / hidden)

    def _words(self) -> str:
        table = self.arrays.table(WORDS)
        if not self._int8:
            return self.graph.op("Gather", self._half(WORDS, table), "input_ids")
        values, scales = quantize.table(table)
        rows = self.graph.op("Gather", self.graph.weight(WORDS, values), "input_ids")
        steps = self.graph.op("Gather", self._half(f"{WORDS}.scale", scales), "input_ids")
        return self.graph.op("Mul", self.graph.op("Cast", rows, to=TensorProto.FLOAT16), steps)

    def _product(self, states: str, name: str) -> str:
        """float16 [tokens, outputs], without the matrix' bias."""
        graph, matrix = self.graph, self.arrays.weight(name)
        if not self._int8:
            return graph.op("MatMul", states, self._half(name, matrix.T))
        values, scales = quantize.blocks(matrix)
        arrays = graph.weight(name, values), graph.weight(f"{name}.scale", scales)
        outputs, inputs = matrix.shape
        return graph.op(
            PRODUCT_INT8, states, *arrays, domain=MICROSOFT, N=outputs, K=inputs, bits=8, block_size=quantize.BLOCK
        )

    def _norm(
        self, states: str, beside: str, name: str, bias_of: str = "", bias: npt.NDArray[np.float32] | None = None
    ) -> str:
        """Of the sum of two states, and of the bias of a matrix which the first came out of."""
        inputs = [states, beside, self._half(f"{name}.weight", self.arrays.weight(name)), self._bias(name)]
        if bias is not None:
            inputs.append(self._half(f"{bias_of}.bias", bias))
        return self.graph.op(NORM, *inputs, domain=MICROSOFT, epsilon=self.geometry.norm_epsilon)

    def _bias(self, name: str) -> str:
        return self._half(f"{name}.bias", self.arrays.bias(name))

    def _half(self, name: str, array: npt.NDArray[np.float32]) -> str:
        return self.graph.weight(name, array.astype(np.float16))
