"""What the matrices of an encoder read, observed on calibration texts in the unquantized graph."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from handler.engine.manifest import GRAPH
from model_layer import graph, quantize, run

Array = npt.NDArray[np.float32]

# By a matrix's name: the least and the greatest of each of its input channels, float32 [channels] each.
Ranges = Mapping[str, tuple[Array, Array]]


def ranges(unquantized: Path, layer: Path, texts: Sequence[str]) -> Ranges:
    """Over all tokens of the texts. `unquantized`: the folder of the graph; `layer`: that of its tokenizer."""
    model = onnx.load(unquantized / GRAPH, load_external_data=False)
    reads = {node.input[1]: node.input[0] for node in model.graph.node if node.op_type == "MatMul"}
    outputs = sorted(set(reads.values()))
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in outputs)
    observed = unquantized / "observed.onnx"
    observed.write_bytes(model.SerializeToString())
    session = run.session(observed)
    found: dict[str, tuple[Array, Array]] = {}
    for ids in run.token_ids(layer, texts):
        for name, values in zip(outputs, session.run(outputs, run.feed(ids)), strict=True):
            low, high = values[0].min(axis=0), values[0].max(axis=0)
            least, most = found.get(name, (low, high))
            found[name] = np.minimum(least, low), np.maximum(most, high)
    return {matrix: found[name] for matrix, name in reads.items()}


def scales(found: Ranges, factors: graph.Factors) -> Mapping[str, quantize.Scale]:
    """One scale and zero point for what each matrix reads, after it has been divided by its factors."""
    return {
        matrix: quantize.activations(*(each / factors.get(matrix, np.float32(1)) for each in channels))
        for matrix, channels in found.items()
    }
