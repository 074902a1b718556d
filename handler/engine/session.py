"""The layer's graph in onnxruntime."""

import base64
import logging
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from handler.engine import gpu, packing
from handler.engine.layer import Layer
from handler.engine.manifest import FP32, GRAPH, PACKED, LayerError
from handler.engine.packing import PROBE_IDS, PROBE_VECTOR

log = logging.getLogger(__name__)

_ALIKE = 0.999  # cosine; matrices in a wrong order give anything

# Longer than the pause between two operators, which is all that a run alone gains by; for as long as onnxruntime would
# by itself, the threads of one run take the cores from another's.
_SPIN_US = 50


class RunOptions(Protocol):
    terminate: bool  # set while a run is under way, it ends it with an exception


class Session(Protocol):
    def run(
        self, outputs: list[str], feed: dict[str, npt.NDArray[np.int64]], options: RunOptions | None = None, /
    ) -> list[npt.NDArray[np.float32]]: ...


def open_session(layer: Layer, threads: int, *, spin: bool, packed: bool = False) -> Session:
    """A session on the layer's graph, on what it was made for; a CPU's weights are memory-mapped. LayerError where it
    cannot be made.

    `spin`: threads wait for the next operator in a loop for a moment, 1.2 times as fast for single texts, which is
    right where the container has a vCPU for each thread and wrong where they share a fraction of one. `packed`: use
    matrices that are packed already, where this machine reads them. It saves half of the time and the memory of all
    matrices, and reads their bytes a second time: onnxruntime packs before it looks for what is packed.
    """
    if layer.manifest.target == "cuda":
        opened: Session = gpu.open_session(_onnxruntime(), layer.folder / GRAPH, _options(threads, spin=spin))
        return opened
    if packed and (session := open_packed(layer, threads, spin=spin)):
        return session
    return _open(layer.folder / GRAPH, threads, spin=spin)


def open_packed(layer: Layer, threads: int, *, spin: bool) -> Session | None:
    """A session on matrices that are packed already, which all such sessions share; None where this machine does not
    read them."""
    onnxruntime, facts = _onnxruntime(), layer.manifest
    if PACKED in facts.files and facts.onnxruntime == onnxruntime.__version__ and packing.reads(facts.cpu):
        session = _open(layer.folder / PACKED, threads, spin=spin)
        if _multiplies_as_built(session):
            return session
        log.error("this processor reads packed matrices otherwise: %s packs its own", layer.folder / GRAPH)
    return None


def open_fp32(layer: Layer) -> Session:
    """A session in fp32 arithmetic on a GPU's layer, with the layer's weights a second time; LayerError where it cannot
    be made."""
    opened: Session = gpu.open_session(_onnxruntime(), layer.folder / FP32, _options(1, spin=False))
    return opened


def _onnxruntime() -> Any:
    # From version 1.29 on, onnxruntime's Linux wheels send telemetry and write to the home folder unless told before
    # the import (microsoft/onnxruntime#27379).
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def _options(threads: int, *, spin: bool) -> Any:
    options = _onnxruntime().SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
    # A pattern of a run's memory is kept for runs of the very same lengths: few are, and 8,192 tokens took 460 MB more.
    options.enable_mem_pattern = False
    options.log_severity_level = 3  # errors; its warnings are about choices that the layer has made on purpose
    return options


def _open(graph: Path, threads: int, *, spin: bool) -> Session:
    onnxruntime, options = _onnxruntime(), _options(threads, spin=spin)
    if gpu.PROVIDER in onnxruntime.get_available_providers():
        raise LayerError(
            f"{graph} is for a CPU, and onnxruntime {onnxruntime.__version__} here is the build for GPUs. Build "
            "the GPU's layer with --target cuda, or install onnxruntime in its place."
        )
    if graph.name == PACKED:  # is optimized already
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session: Session = onnxruntime.InferenceSession(
            str(graph),
            options,
            providers=["CPUExecutionProvider"],
            # Would fuse Add and LayerNormalization into an operator that is ten times slower.
            disabled_optimizers=["SkipLayerNormFusion"],
        )
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise LayerError(f"onnxruntime {onnxruntime.__version__} cannot load {graph}: {error}") from None
    return session


def _multiplies_as_built(session: Any) -> bool:
    """Whether the probe's vector is what it was when the layer was built, but for a processor's last bits."""
    told = session.get_modelmeta().custom_metadata_map
    ids = np.array(told[PROBE_IDS].split(), np.int64)
    vector = session.run(["dense"], {"input_ids": ids, "lengths": np.array([len(ids)])})[0][0]
    return float(np.dot(vector, np.frombuffer(base64.b64decode(told[PROBE_VECTOR]), "<f4"))) > _ALIKE


def run_options() -> RunOptions:
    import onnxruntime

    options: RunOptions = onnxruntime.RunOptions()
    return options
