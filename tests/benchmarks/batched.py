"""Our float32 graph in the form in which other runtimes take it: texts of equal length as the rows of a batch, without
a mask and without the parts that run text by text."""

from pathlib import Path

from onnx import TensorProto

from handler.engine.manifest import GRAPH, WEIGHTS
from model_layer.arrays import POSITIONS, WORDS
from model_layer.catalog import Model
from model_layer.graph import FIRST_POSITION, Encoding
from model_layer.sources import Source
from model_layer.writer import MICROSOFT, Writer


def write(source: Source, model: Model, folder: Path) -> None:
    """GRAPH and WEIGHTS: `input_ids` int64 [batch, tokens] to `dense` float32 [batch, hidden]."""
    hidden = model.geometry.hidden
    with Writer(folder / WEIGHTS) as graph:
        encoding = _Batched(graph, source, model, None)
        states = encoding.embeddings()
        for index in range(model.geometry.layers):
            states = encoding.layer(index, states)
        graph.output("dense", encoding.pooled(states))
        graph.save(
            folder / GRAPH,
            [("input_ids", TensorProto.INT64, ["batch", "tokens"])],
            [("dense", TensorProto.FLOAT, ["batch", hidden])],
        )


class _Batched(Encoding):
    def embeddings(self) -> str:
        graph = self.graph
        first, axis = graph.constant(FIRST_POSITION, [self.geometry.first_position]), graph.constant("row_axis", [0])
        end = graph.op("Add", graph.op("Shape", "input_ids", start=1, end=2), first)
        [words], [table] = self.table(WORDS), self.table(POSITIONS)
        positions = graph.op("Slice", table, first, end, axis)
        return self.norm(graph.op("Add", graph.op("Gather", words, "input_ids"), positions), "embeddings.LayerNorm")

    def attention(self, *states: str) -> str:
        return self.graph.op("MultiHeadAttention", *states, domain=MICROSOFT, num_heads=self.geometry.heads)

    def pooled(self, states: str) -> str:
        graph = self.graph
        if self.pooling == "cls":
            return graph.normalized(graph.op("Gather", states, graph.constant("first", 0), axis=1))
        return graph.normalized(graph.op("ReduceMean", states, graph.constant("token_axis", [1]), keepdims=0))
