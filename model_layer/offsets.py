"""A row of texts of any lengths as PackedMultiHeadAttention takes it, as parts of an ONNX graph.

The operator wants to know where each token would stand if the texts were padded to the longest, one below the other:
of three texts with 1, 2 and 4 tokens, `*` for padding,

    0  1* 2* 3*
    4  5  6* 7*     →  offsets 0 4 5 8 9 10 11, then 1* 2* 3* 6* 7*;  cumulative lengths 0 1 3 7
    8  9  10 11

On a GPU one number goes back to the host before all else is queued, the longest length, because a shape depends on it;
the rest are a few kernels over texts × longest integers. No operator here is a reduction: onnxruntime's need cuDNN.
"""

import numpy as np
from onnx import TensorProto

from model_layer.writer import Writer

INT32 = TensorProto.INT32


class Offsets:
    """`by_token` int32 [texts, longest] and `cumulative` int32 [texts + 1] are the operator's; `starts` int64 [texts]
    is where each text begins in the row."""

    def __init__(self, graph: Writer, tokens: str, lengths: str) -> None:
        """`tokens`: anything that has one entry a token; `lengths`: int64 [texts]."""
        self._graph = graph
        self._zero, one = graph.constant("row_start", [0]), graph.constant("one", [1])
        self._first, self._step = graph.constant("zero", 0, np.int32), graph.constant("step", 1, np.int32)
        self._size = graph.op("Size", tokens)

        ends = graph.op("CumSum", lengths, self._zero)
        self.starts = graph.op("Sub", ends, lengths)
        self.cumulative = self._int32(graph.op("Concat", self._zero, ends, axis=0))

        longest, _ = graph.node("TopK", lengths, one, outputs=2, axis=0)
        self._longest = self._int32(graph.op("Squeeze", longest))
        self._texts = self._up_to(self._int32(graph.op("Size", lengths)))
        self._packed, self.by_token = self._permutation(ends, lengths)

    def _permutation(self, ends: str, lengths: str) -> tuple[str, str]:
        """int32 [texts · longest] and [texts, longest]: padded places, in the order in which the row has them."""
        graph = self._graph
        rows = graph.op("Mul", self._texts, self._longest)  # where each text begins if padded
        row, start, end, length = (
            graph.op("Unsqueeze", each, graph.constant(f"column_{n}", [1]))
            for n, each in enumerate((rows, *map(self._int32, (self.starts, ends, lengths))))
        )
        inside = self._up_to(self._longest)
        place = graph.op("Add", row, inside)
        # Behind the tokens comes the padding, text by text: what stood before a text's end has its place already.
        behind = graph.op("Sub", graph.op("Add", row, self._int32(self._size)), end)
        packed = graph.op("Add", graph.op("Where", graph.op("Less", inside, length), start, behind), inside)
        flat, each = (graph.op("Reshape", values, graph.constant(name, [-1]))
                      for name, values in (("all_places", place), ("all_packed", packed)))  # fmt: skip
        ordered = graph.op("ScatterElements", flat, each, flat, axis=0)
        return ordered, graph.op("Reshape", ordered, graph.op("Shape", place))

    def positions(self, first: str) -> str:
        """int32 [tokens]: of each token in its text, from `first` on, int32 [1]."""
        return self._graph.op("Add", self._graph.op("Mod", self._own, self._longest), first)

    @property
    def members(self) -> str:
        """bool [texts, tokens]: which tokens are whose."""
        graph = self._graph
        column = graph.op("Unsqueeze", self._texts, graph.constant("member_axis", [1]))
        return graph.op("Equal", column, graph.op("Div", self._own, self._longest))

    @property
    def _own(self) -> str:
        """int32 [tokens]: the padded places without the padding's."""
        graph = self._graph
        return graph.op("Slice", self._packed, self._zero, graph.op("Reshape", self._size, "one"))

    def _up_to(self, count: str) -> str:
        return self._graph.op("Range", self._first, count, self._step)

    def _int32(self, values: str) -> str:
        return self._graph.op("Cast", values, to=INT32)
