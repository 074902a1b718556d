"""Which matrices hurt in int8: a layer measured with each of them in float32 instead, and the fewest that must be.

Those that read the same states are quantized together and stay in float32 together. The measure of a graph is its
error: the mean of 1 - cosine to the unquantized graph, of the dense vector and of the tokens' states, which all outputs
are made of.
"""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper

from handler.engine.manifest import GRAPH, WEIGHTS
from model_layer import parity, run
from model_layer.catalog import Model
from model_layer.encoder import nodes
from model_layer.parity import Matrix
from model_layer.run import Outputs

_FLOAT32 = "float32.bin"
_TEXTS, _CHARACTERS = 32, 400  # of the verification texts that each matrix is tried on, and how long they are at most


@dataclass(frozen=True)
class Bench:
    """A layer, and what its encoder is judged by: the unquantized one in a folder of its own and its outputs."""

    layer: Path
    unquantized: Path
    inputs: Sequence[str]
    reference: Outputs
    control: Collection[int]

    def outputs(self, encoder: Path | None = None) -> Outputs:
        """Of the layer, or of another encoder for its tokenizer and heads."""
        return run.outputs(self.layer, self.inputs, self.control, encoder)

    def shortfalls(self, found: Outputs, model: Model) -> list[str]:
        return list(parity.shortfalls(parity.figures(found, self.reference, model), model.thresholds))


def needed(bench: Bench, model: Model, folder: Path, progress: Callable[[str], None]) -> tuple[str, ...] | None:
    """The matrices of a layer in int8 that must be in float32 for it to pass, what hurts most first; None where all
    but one would not do, for with all it is in fp32. `folder`: an empty one, on the layer's own disk."""
    variants = _Variants(bench.layer, bench.unquantized, folder)
    ids = list(run.token_ids(bench.layer, _sample(bench.inputs)))
    exact = list(_vectors(bench.unquantized / GRAPH, ids))
    before = _error(exact, _vectors(bench.layer / GRAPH, ids))
    gains: dict[tuple[str, ...], float] = {}
    for number, group in enumerate(variants.groups, 1):
        after = _error(exact, _vectors(variants.write(group) / GRAPH, ids))
        gains[group] = before - after
        progress(f"{number}/{len(variants.groups)}: error {before:.6f}, {after:.6f} with {group[0]} in float32")
    ranked = sorted(gains, key=lambda group: -gains[group])

    def passes(count: int) -> bool:
        names = _names(ranked[:count])
        short = bench.shortfalls(bench.outputs(variants.write(names)), model)
        progress(f"{len(names)} in float32: {'; '.join(short) or 'passes'}")
        return not short

    most, limit = 1, len(ranked) - 1
    while not passes(most):
        if most == limit:
            return None
        most = min(2 * most, limit)
    least = most // 2 + 1  # half as many did not pass
    while least < most:
        middle = (least + most) // 2
        if passes(middle):
            most = middle
        else:
            least = middle + 1
    return _names(ranked[:most])


def _names(groups: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(name for group in groups for name in group)


def _sample(inputs: Sequence[str]) -> list[str]:
    short = [text for text in inputs if len(text) <= _CHARACTERS]
    return short[:: max(1, len(short) // _TEXTS)]


def _vectors(graph: Path, ids: Sequence[npt.NDArray[np.int64]]) -> Iterator[Matrix]:
    """Of each text float32 [1 + tokens, dimensions]: the dense vector, then the states."""
    session: onnxruntime.InferenceSession = run.session(graph)
    for each in ids:
        dense, states = session.run(["dense", "token_states"], run.feed(each))
        yield np.concatenate([dense, states[0]])


def _error(exact: Sequence[Matrix], found: Iterator[Matrix]) -> float:
    def cosines(a: Matrix, b: Matrix) -> Matrix:
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return np.asarray(np.einsum("ij,ij->i", a, b) / norms)

    each = [1 - cosines(a, b) for a, b in zip(exact, found, strict=True)]
    return float(np.mean([losses[0] for losses in each]) + np.mean([losses[1:].mean() for losses in each]))


class _Variants:
    """Graphs over the weights of both a layer in int8 and the same unquantized, which are linked into one folder."""

    def __init__(self, layer: Path, unquantized: Path, folder: Path) -> None:
        self._folder = folder
        os.link(layer / WEIGHTS, folder / WEIGHTS)
        os.link(unquantized / WEIGHTS, folder / _FLOAT32)
        self._int8 = onnx.load(layer / GRAPH, load_external_data=False)
        exact = onnx.load(unquantized / GRAPH, load_external_data=False)
        self._exact = {each.name: each for each in exact.graph.initializer}
        self._nodes = {output: node for node in self._int8.graph.node for output in node.output}
        products: dict[str, list[str]] = {}
        for node in self._int8.graph.node:
            if node.op_type == "MatMulIntegerToFloat":
                products.setdefault(node.input[0], []).append(node.input[1])
        casts = [node for node in self._int8.graph.node if node.op_type == "Cast"]  # of the rows of a table
        tables = [(self._nodes[cast.input[0]].input[0],) for cast in casts]
        self.groups = [*tables, *map(tuple, products.values())]

    def write(self, names: Collection[str]) -> Path:
        """The folder, with the graph that has these matrices and tables in float32."""
        model = onnx.ModelProto()
        model.CopyFrom(self._int8)
        del model.graph.node[:]
        for node in self._int8.graph.node:
            model.graph.node.extend(self._exchanged(node, names))
        for name in names:
            weight = onnx.TensorProto()
            weight.CopyFrom(self._exact[name])
            weight.name = f"{name}.float32"
            next(entry for entry in weight.external_data if entry.key == "location").value = _FLOAT32
            model.graph.initializer.append(weight)
        read = {name for node in nodes(model.graph) for name in node.input}
        unread = [each for each in model.graph.initializer if each.name not in read]
        for each in unread:
            model.graph.initializer.remove(each)
        (self._folder / GRAPH).write_bytes(model.SerializeToString())
        return self._folder

    def _exchanged(self, node: onnx.NodeProto, names: Collection[str]) -> list[onnx.NodeProto]:
        """What stands in a node's place; what nobody reads any more onnxruntime leaves out."""
        if node.op_type == "MatMulIntegerToFloat" and node.input[1] in names:
            name, product = node.input[1], f"{node.output[0]}.product"
            states = self._nodes[node.input[0]].input[0]
            if (smoothed := self._nodes[states]).op_type == "Mul":
                states = smoothed.input[0]  # the factors belong to the int8 form alone
            return [
                helper.make_node("MatMul", [states, f"{name}.float32"], [product]),
                helper.make_node("Add", [product, node.input[6]], node.output),
            ]
        if node.op_type == "Mul" and (cast := self._nodes.get(node.input[0])) and cast.op_type == "Cast":
            rows = self._nodes[cast.input[0]]
            if rows.input[0] in names:
                exact = onnx.NodeProto()
                exact.CopyFrom(rows)
                exact.input[0], exact.output[0] = f"{rows.input[0]}.float32", node.output[0]
                return [exact]
        return [node]
