"""Texts of any lengths in one row of tokens: what has to be done to each of them alone, as parts of an ONNX graph.

Products, norms and activations treat tokens one by one and do not see where a text ends. Attention, positions and
pooling do: they run text by text, in a Loop whose pieces are put together again. So short texts share what a run costs
however short it is, none is padded, and each goes through the kernels in the shape that it has alone.
"""

from collections.abc import Callable

from onnx import TensorProto, helper

from model_layer.writer import Writer

ROW_AXIS, COLUMN_AXIS = "row_axis", "column_axis"
Piece = Callable[[str], str]


class Row:
    """The row that `lengths`, int64 [texts], divides; `starts` int64 [texts]."""

    def __init__(self, graph: Writer, lengths: str) -> None:
        self._graph = graph
        self._zero, one = graph.constant("row_start", [0]), graph.constant("single", 1)
        ends = graph.op("CumSum", lengths, self._zero)
        self.starts = graph.op("Sub", ends, lengths)
        axis = graph.constant(COLUMN_AXIS, [1])
        self._columns = [graph.op("Unsqueeze", each, axis) for each in (self.starts, ends, lengths)]
        self._count = graph.op("Size", lengths)
        self._is_one = graph.op("Equal", self._count, one)
        self._always = graph.constant("always", True, bool)

    def bounds(self, text: str) -> tuple[str, str]:
        """Where a text begins and ends, int64 [1] each."""
        start, end, _ = self._columns
        return self._graph.op("Gather", start, text), self._graph.op("Gather", end, text)

    def positions(self, tokens: str, first: str) -> str:
        """int64 [tokens]: of each token in its text, from `first` on. `tokens`: int64 [tokens]."""
        graph = self._graph
        size, start = graph.op("Size", tokens), graph.op("Squeeze", first)
        every = graph.op("Range", start, graph.op("Add", start, size), graph.constant("step", 1))

        def piece(text: str) -> str:
            return graph.op("Slice", every, self._zero, graph.op("Gather", self._columns[2], text))

        return self.each(piece, 0, TensorProto.INT64)

    def each(self, piece: Piece, axis: int, kind: int = TensorProto.FLOAT) -> str:
        """What `piece` makes of each text's number, put together along an axis."""
        graph = self._graph
        text, before, more = (graph.name(each) for each in ("text", "before", "more"))
        with graph.inner() as nodes:
            after = graph.op("SequenceInsert", before, piece(text))
            onward = graph.op("Identity", more)
        scalar, pieces = helper.make_tensor_value_info, helper.make_tensor_sequence_value_info
        body = helper.make_graph(
            nodes,
            graph.name("each"),
            [scalar(text, TensorProto.INT64, []), scalar(more, TensorProto.BOOL, []), pieces(before, kind, None)],
            [scalar(onward, TensorProto.BOOL, []), pieces(after, kind, None)],
        )
        none = graph.op("SequenceEmpty", dtype=kind)
        made = graph.op("Loop", self._count, self._always, none, body=body)
        return graph.op("ConcatFromSequence", made, axis=axis)

    def whole_or_each(self, whole: Callable[[], str], piece: Piece, axis: int, shape: list[int | str]) -> str:
        """`whole` where the row is one text, which spares it the Loop and the slices; else as `each`."""
        branches = {}
        for name, make in (("then_branch", whole), ("else_branch", lambda: self.each(piece, axis))):
            with self._graph.inner() as nodes:
                made = make()
            result = helper.make_tensor_value_info(made, TensorProto.FLOAT, shape)
            branches[name] = helper.make_graph(nodes, self._graph.name(name), [], [result])
        return self._graph.op("If", self._is_one, **branches)
