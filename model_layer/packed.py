"""The encoder once more, with its int8 matrices as onnxruntime's products read them: a session on it packs nothing, so
that it opens in half the time and its weights stay in the page cache, shared by all processes.

onnxruntime writes this form itself (`session.save_external_prepacked_constant_initializers`), with every array a second
time. Here what both graphs have is written once: packed matrices stand behind the others in the weights file, in the
order in which they are read.
"""

import base64
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported

import onnxruntime

from handler.engine import packing
from handler.engine.manifest import GRAPH, PACKED, WEIGHTS
from handler.engine.packing import PROBE_IDS, PROBE_VECTOR
from model_layer import run
from model_layer.writer import PAGE

_TEXT = "The quick brown fox jumps over the lazy dog."
_FORM = "prepacked_"  # onnxruntime's keys of packed forms: kernel and hash, `|`, offset, length and more, by `;`


def write(layer: Path) -> bool:
    """Write PACKED into the folder of an int8 layer, and its matrices behind the arrays in WEIGHTS; False on a
    processor that packs in another way than those of packing.FEATURES."""
    if not packing.reads(packing.FEATURES):
        return False
    written = {each.name: each.extents for each in _arrays(onnx.load(layer / GRAPH, load_external_data=False))}
    with _saved(layer) as (model, source), (layer / WEIGHTS).open("ab") as weights:

        def copy(extent: Extent) -> int:
            weights.write(b"\0" * (-weights.tell() % PAGE))
            weights.write(source[extent.offset : extent.end])
            return weights.tell() - extent.length

        def place(there: list[Extent], extent: Extent) -> int:
            """What is not there is packed, or is what the optimization has made of constants."""
            same = [each.offset for each in there if not extent.form and each.length == extent.length]
            return same[0] if same else copy(extent)

        for array in _arrays(model):
            array.move(partial(place, written.get(array.name, [])))
        onnx.helper.set_model_props(model, _probe(layer))
        (layer / PACKED).write_bytes(model.SerializeToString(deterministic=True))
    return True


def faults(layer: Path, version: str) -> Iterator[str]:
    """What PACKED, made for this version of onnxruntime, has otherwise than GRAPH gives here; nothing where this
    machine cannot tell."""
    if not (layer / PACKED).exists() or version != onnxruntime.__version__ or not packing.reads(packing.FEATURES):
        return
    found = onnx.load(layer / PACKED, load_external_data=False)
    with _saved(layer) as (model, source), (layer / WEIGHTS).open("rb") as file:
        weights = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        arrays, mine = {each.name: each for each in _arrays(found)}, {each.name: each for each in _arrays(model)}
        same = found.graph.node == model.graph.node and arrays.keys() == mine.keys()
        if not same or any(
            [weights[each.offset : each.end] for each in array.extents]
            != [source[each.offset : each.end] for each in mine[name].extents]
            for name, array in arrays.items()
        ):
            yield f"{PACKED} and its matrices are not what onnxruntime makes of {GRAPH}"
    told = {each.key: each.value for each in found.metadata_props}
    if told != _probe(layer):
        yield f"{PACKED} tells of another vector than {GRAPH} gives"


@dataclass(frozen=True)
class Extent:
    """Bytes of the weights file: an array's own, or under `form` its packed ones."""

    offset: int
    length: int
    form: str = ""

    @property
    def end(self) -> int:
        return self.offset + self.length


class _Array:
    """An array that lies outside the graph."""

    def __init__(self, tensor: TensorProto) -> None:
        self._tensor, self.name = tensor, tensor.name
        self._place = {each.key: each.value for each in tensor.external_data}

    @property
    def extents(self) -> list[Extent]:
        packed = {
            key: value.partition("|")[2].split(";") for key, value in self._place.items() if key.startswith(_FORM)
        }
        own = Extent(int(self._place["offset"]), int(self._place["length"]))
        return [own, *(Extent(int(where[0]), int(where[1]), key) for key, where in packed.items())]

    def move(self, move: Callable[[Extent], int]) -> None:
        """Say that it lies where `move` tells of each of its extents."""
        for extent in self.extents:
            offset = str(move(extent))
            if extent.form:
                kernel, _, where = self._place[extent.form].partition("|")
                offset = f"{kernel}|{';'.join([offset, *where.split(';')[1:]])}"
            self._place[extent.form or "offset"] = offset
        del self._tensor.external_data[:]
        for key, value in self._place.items():
            self._tensor.external_data.add(key=key, value=value)


def _arrays(model: onnx.ModelProto) -> Iterator[_Array]:
    """Its arrays outside the graph, in the order in which they are read."""
    outside = {each.name: each for each in model.graph.initializer if each.external_data}
    read = dict.fromkeys(name for node in model.graph.node for name in node.input if name in outside)
    return map(_Array, (outside[name] for name in read))


@contextmanager
def _saved(layer: Path) -> Iterator[tuple[onnx.ModelProto, Any]]:
    """What onnxruntime makes of the layer's graph, and the bytes of its arrays."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    with tempfile.TemporaryDirectory(dir=layer.parent) as made:
        options.optimized_model_filepath = str(Path(made) / GRAPH)
        onnxruntime.InferenceSession(
            str(layer / GRAPH), options, providers=["CPUExecutionProvider"], disabled_optimizers=["SkipLayerNormFusion"]
        )
        with (Path(made) / WEIGHTS).open("rb") as file:
            source = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            yield onnx.load(Path(made) / GRAPH, load_external_data=False), source
            source.close()


def _probe(layer: Path) -> dict[str, str]:
    """What a function compares with its own vector of the same ids."""
    [ids] = run.token_ids(layer, [_TEXT])
    [vector] = run.session(layer / GRAPH).run(["dense"], run.feed(ids))
    return {
        PROBE_IDS: " ".join(map(str, ids)),
        PROBE_VECTOR: base64.b64encode(vector.astype("<f4").tobytes()).decode(),
    }
