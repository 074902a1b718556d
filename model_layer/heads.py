"""bge-m3's two further outputs as a graph of their own, because onnxruntime computes every output of a graph.

heads.onnx   in   `token_states` float32 [batch, tokens, hidden]   the encoder's last hidden state H
             out  `sparse`       float32 [batch, tokens]   relu(H·w + b), a weight for every token
                  `multi_vector` float32 [batch, tokens - 1, hidden]   rows of L(H) but the first, L2-normalized

Formulas: FlagEmbedding 1.4.2, modeling.py of m3. Weights are fp32: 4 MB at a hidden size of 1,024.
"""

from pathlib import Path

import numpy as np
from onnx import TensorProto

from model_layer.sources import Source
from model_layer.writer import Writer

GRAPH, WEIGHTS = "heads.onnx", "heads.bin"


def write(source: Source, hidden: int, folder: Path) -> None:
    """Write GRAPH and WEIGHTS into the folder. Raises SourceError where a head is missing or of another shape."""
    with Writer(folder / WEIGHTS) as graph:

        def linear(states: str, head: str, outputs: int) -> str:
            matrix = graph.weight(f"{head}.weight", source.tensor(f"{head}.weight", outputs, hidden).T)
            bias = graph.weight(f"{head}.bias", source.tensor(f"{head}.bias", outputs))
            return graph.op("Add", graph.op("MatMul", states, matrix), bias)

        weights = graph.op("Relu", linear("token_states", "sparse_linear", 1))
        graph.output("sparse", graph.op("Squeeze", weights, graph.constant("last_axis", [-1])))
        one, end = graph.constant("one", [1]), graph.constant("end", [np.iinfo(np.int64).max])
        rest = graph.op("Slice", "token_states", one, end, one)
        graph.output("multi_vector", graph.normalized(linear(rest, "colbert_linear", hidden)))
        graph.save(
            folder / GRAPH,
            [("token_states", TensorProto.FLOAT, ["batch", "tokens", hidden])],
            [
                ("sparse", TensorProto.FLOAT, ["batch", "tokens"]),
                ("multi_vector", TensorProto.FLOAT, ["batch", "rows", hidden]),
            ],
        )
