"""Ours on a graph alone, without tokenizer and manifest: `options["graph"]` in the folder that `options["graphs"]` has
for `options["precision"]`, on the GPU or, where there is none, on the CPU with its stand-in. Texts share runs as in the
engine."""

from pathlib import Path
from typing import Any

from handler.engine import gpu
from handler.engine.manifest import GRAPH
from handler.engine.pace import Pace
from handler.engine.sessions import Sessions
from handler.engine.targets import CUDA
from handler.engine.turns import Turns
from model_layer import run
from tests.benchmarks.workers import kernels
from tests.benchmarks.workers.serve import Loaded, Options, main


def load(options: Options) -> Loaded:
    folder, dimensions = Path(options["graphs"][options["precision"]]), options["dimensions"]
    pace = Pace(dimensions, CUDA.together, target=CUDA)
    sessions = Sessions(_session(folder / options.get("graph", GRAPH), options))
    turns = Turns(sessions, dimensions, pace, CUDA.together, 1, CUDA.texts)
    return Loaded(lambda texts, _: turns.vectors(texts, None))


def _session(graph: Path, options: Options) -> Any:
    if not options["on_gpu"]:
        return run.session(graph, options["threads"])
    import onnxruntime

    gpu.find()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = 1, 3
    return gpu.open_session(onnxruntime, graph, settings)


if __name__ == "__main__":
    main(load, kernels.told_of(load))
