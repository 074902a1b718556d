"""The layer's graph in onnxruntime."""

import os
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from handler.engine.manifest import GRAPH, LayerError

# Longer than the pause between two operators, which is all that a run alone gains by; for as long as onnxruntime would
# by itself, the threads of one run take the cores from another's.
_SPIN_US = 50


class RunOptions(Protocol):
    terminate: bool  # set while a run is under way, it ends it with an exception


class Session(Protocol):
    def run(
        self, outputs: list[str], feed: dict[str, npt.NDArray[np.int64]], options: RunOptions | None = None, /
    ) -> list[npt.NDArray[np.float32]]: ...


def open_session(layer: Path, threads: int, *, spin: bool) -> Session:
    """A session on the layer's graph; its weights are memory-mapped. LayerError where it cannot be made.

    `spin`: threads wait for the next operator in a loop for a moment, 1.2 times as fast for single texts, which is
    right where the container has a vCPU for each thread and wrong where they share a fraction of one.
    """
    # From version 1.29 on, onnxruntime's Linux wheels send telemetry and write to the home folder unless told before
    # the import (microsoft/onnxruntime#27379).
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
    options.log_severity_level = 3  # errors; its warnings are about choices that the layer has made on purpose
    try:
        session: Session = onnxruntime.InferenceSession(
            str(layer / GRAPH),
            options,
            providers=["CPUExecutionProvider"],
            # Would fuse Add and LayerNormalization into an operator that is ten times slower.
            disabled_optimizers=["SkipLayerNormFusion"],
        )
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise LayerError(f"onnxruntime {onnxruntime.__version__} cannot load {layer / GRAPH}: {error}") from None
    return session


def run_options() -> RunOptions:
    import onnxruntime

    options: RunOptions = onnxruntime.RunOptions()
    return options
