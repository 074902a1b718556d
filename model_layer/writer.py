"""An ONNX graph being written: nodes and their names, and arrays as external data on page boundaries."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

MICROSOFT = "com.microsoft"
PAGE = 4096  # what mmap can map; onnxruntime maps an array where its offset is a multiple

Tensor = tuple[str, int, list[Any]]  # name, TensorProto's element type, shape


class Writer:
    """Collects nodes, and writes each array to the weights file the moment it is made: one is in memory at a time."""

    def __init__(self, weights: Path) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._numbers = count()
        self._initializers: list[onnx.TensorProto] = []
        self._location = weights.name
        self._file = weights.open("wb")

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def name(self, kind: str) -> str:
        """One that nothing else in the graph has."""
        return f"{kind}_{next(self._numbers)}"

    @contextmanager
    def inner(self) -> Iterator[list[onnx.NodeProto]]:
        """What is added meanwhile goes into this list: a graph inside the graph, which sees the values around it."""
        outer, self._nodes = self._nodes, []
        try:
            yield self._nodes
        finally:
            self._nodes = outer

    def node(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> list[str]:
        """Add a node; names of its outputs."""
        names = [self.name(kind) for _ in range(outputs)]
        self._nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; its name."""
        return self.node(kind, *inputs, domain=domain, **attributes)[0]

    def output(self, name: str, value: str) -> None:
        """Make a value an output of the graph under this name."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))

    def constant(
        self, name: str, values: float | list[int] | list[float], dtype: type[np.generic] | type[bool] = np.int64
    ) -> str:
        """A few numbers inside the graph file, where shape inference can see them."""
        self._initializers.append(onnx.numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def weight(self, name: str, array: npt.NDArray[np.generic]) -> str:
        """An array in the weights file, little-endian and row-major."""
        self._file.write(b"\0" * (-self._file.tell() % PAGE))
        tensor = TensorProto(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": self._location, "offset": self._file.tell(), "length": array.nbytes}.items():
            tensor.external_data.add(key=key, value=str(value))
        array.astype(array.dtype.newbyteorder("<"), order="C", copy=False).tofile(self._file)
        self._initializers.append(tensor)
        return name

    def normalized(self, rows: str) -> str:
        """Each row over its length, which counts as 1e-12 at least: torch's `normalize`."""
        length = self.op("ReduceL2", rows, self.constant("vector_axis", [-1]), keepdims=1)
        return self.op("Div", rows, self.op("Max", length, self.constant("floor", [1e-12], np.float32)))

    def save(self, path: Path, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Write the graph, with its inputs and outputs."""
        graph = helper.make_graph(
            self._nodes,
            path.stem,
            [helper.make_tensor_value_info(*each) for each in inputs],
            [helper.make_tensor_value_info(*each) for each in outputs],
            self._initializers,
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="emblet")
        path.write_bytes(model.SerializeToString(deterministic=True))


_FLOATS = {TensorProto.FLOAT: "<f4", TensorProto.FLOAT16: "<f2"}


def floats(path: Path) -> Iterator[tuple[str, npt.NDArray[np.floating]]]:
    """The float32 and float16 arrays of a written graph by name, mapped from its weights file."""
    for each in onnx.load(path, load_external_data=False).graph.initializer:
        if each.data_location == TensorProto.EXTERNAL and (kind := _FLOATS.get(each.data_type)):
            place = {entry.key: entry.value for entry in each.external_data}
            yield (
                each.name,
                np.memmap(path.parent / place["location"], kind, "r", int(place["offset"]), tuple(each.dims)),
            )
