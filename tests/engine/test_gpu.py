"""Layers for a GPU: refused where there is none, as a CPU's are where one was promised; and how runs are formed."""

import ctypes
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnxruntime import GraphOptimizationLevel

from handler.engine import engine as engines
from handler.engine import gpu, manifest, session
from handler.engine.engine import Engine
from handler.engine.layer import Layer, open_layer
from handler.engine.manifest import FP32, GRAPH, LayerError
from handler.engine.pace import Pace
from handler.engine.targets import CPU, CUDA
from handler.settings import Settings
from model_layer import run
from tests.conftest import HOUSE

L4 = gpu.Device("NVIDIA L4", (8, 9), 24 << 30)


class Driver:
    """libcuda, as far as it is asked."""

    def __init__(
        self, name: str, capability: tuple[int, int], memory: int, count: int = 1, version: int = 13_000
    ) -> None:
        self._values = {"name": name.encode(), "memory": memory, "count": count, "version": version}
        self._capability = {75: capability[0], 76: capability[1]}

    def cuInit(self, _flags: int) -> int:  # noqa: N802
        return 0 if self._values["count"] else 100

    def __getattr__(self, call: str) -> Callable[..., int]:
        def answer(into: Any, *rest: Any) -> int:
            if call == "cuDeviceGetName":
                into.value = self._values["name"]
            elif call == "cuDeviceGetAttribute":
                into._obj.value = self._capability[rest[0]]
            else:
                wanted = {"cuDeviceGetCount": "count", "cuDriverGetVersion": "version", "cuDeviceTotalMem_v2": "memory"}
                into._obj.value = self._values[wanted[call]] if call in wanted else 0
            return 0

        return answer


def refusal(**driver: Any) -> str:
    with pytest.raises(LayerError) as caught:
        gpu.find(lambda _: Driver(**{"name": L4.name, "capability": L4.capability, "memory": L4.memory, **driver}))
    return str(caught.value)


def test_the_driver_tells_of_the_gpu() -> None:
    assert gpu.find(lambda _: Driver(L4.name, L4.capability, L4.memory)) == L4


def test_why_there_is_none_is_said() -> None:
    with pytest.raises(LayerError, match=r"no GPU is here: the NVIDIA driver's library cannot be loaded \(libno"):
        gpu.find(lambda _: ctypes.CDLL("libno-such-driver.so.1"))
    assert refusal(count=0) == "no GPU is here: the NVIDIA driver finds none (cuInit 100)"
    assert "is for CUDA 12.4, and onnxruntime needs 13.0: driver 580" in refusal(version=12_040)
    assert refusal(name="Tesla V100", capability=(7, 0)) == (
        "Tesla V100 has compute capability 7.0, and onnxruntime needs 7.5"
    )


@pytest.fixture
def for_cuda(minilm: Path, tmp_path: Path) -> Path:
    """A layer that says that it is for CUDA: nothing looks at its graph before its target."""
    folder = Path(shutil.copytree(minilm, tmp_path / "cuda"))
    values = json.loads((folder / manifest.NAME).read_text()) | {"target": "cuda", "activation_scales": None}
    (folder / manifest.NAME).write_text(json.dumps(values))
    return folder


def no_gpu() -> None:
    raise LayerError("no GPU is here")


@pytest.mark.parametrize("promised", [0, 1])
def test_a_gpus_layer_is_refused_where_there_is_none(
    promised: int, for_cuda: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "find", no_gpu)
    with pytest.raises(
        LayerError, match=r"is for a GPU, and no GPU is here\. .* `python -m model_layer build all-mini"
    ):
        open_layer(Settings(model_dir=str(for_cuda), require_gpu=promised))


def test_a_cpus_layer_is_refused_where_a_gpu_was_promised(minilm: Path) -> None:
    with pytest.raises(
        LayerError, match=r"REQUIRE_GPU=1 .* `python -m model_layer build all-minilm-l6-v2 --target cuda`"
    ):
        open_layer(Settings(model_dir=str(minilm), require_gpu=1))


def test_a_promised_gpu_that_is_not_there_fails_the_start(minilm: Path) -> None:
    """Of the process, with the reason, before a port is open."""
    env = {
        "MODEL_DIR": str(minilm),
        "KEYS_TABLE": "k",
        "USAGE_TABLE": "u",
        "REQUIRE_GPU": "1",
        "AWS_REGION": "eu-west-1",
    }
    start = "from handler.api.app import create_app; create_app()"
    done = subprocess.run(
        [sys.executable, "-c", start], cwd=HOUSE, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "REQUIRE_GPU=1 promises a GPU" in done.stderr


class Runtime(SimpleNamespace):
    """onnxruntime's build for GPUs; `opened`: the provider that a session has come to."""

    def __init__(self, opened: str) -> None:
        super().__init__(__version__="1.31.1", asked=[], loaded=[], GraphOptimizationLevel=GraphOptimizationLevel)
        self._opened = opened

    def SessionOptions(self) -> Any:  # noqa: N802
        return SimpleNamespace(add_session_config_entry=lambda *_: None)

    def get_available_providers(self) -> list[str]:
        return [gpu.PROVIDER, "CPUExecutionProvider"]

    def preload_dlls(self, **options: Any) -> None:
        self.loaded.append(options)

    def InferenceSession(self, graph: str, options: Any, providers: Any, **_: Any) -> Any:  # noqa: N802
        self.asked.append((graph, providers, getattr(options, "graph_optimization_level", None)))
        return SimpleNamespace(get_providers=lambda: [self._opened])


def opened(folder: Path) -> Layer:
    return Layer(folder, manifest.load(folder))


def test_a_gpus_session_is_on_the_gpu_and_nowhere_else(for_cuda: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(gpu.PROVIDER)
    monkeypatch.setattr(session, "_onnxruntime", lambda: runtime)
    session.open_session(opened(for_cuda), 1, spin=False, packed=True)
    session.open_fp32(opened(for_cuda))
    provider = [(gpu.PROVIDER, gpu.OPTIONS)]
    assert runtime.asked == [
        (str(for_cuda / GRAPH), provider, None),
        (str(for_cuda / FP32), provider, GraphOptimizationLevel.ORT_DISABLE_ALL),  # or all matrices would stay in fp32
    ]
    assert runtime.loaded == 2 * [{"cudnn": False, "directory": ""}]


def test_a_session_that_has_fallen_back_to_the_cpu_is_none(for_cuda: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_onnxruntime", lambda: Runtime("CPUExecutionProvider"))
    with pytest.raises(LayerError, match="has fallen back to the CPU"):
        session.open_session(opened(for_cuda), 1, spin=False)


def test_onnxruntime_for_cpus_takes_no_gpus_layer(for_cuda: Path) -> None:
    with pytest.raises(LayerError, match=r"is the build for CPUs\. Install onnxruntime-gpu"):
        session.open_session(opened(for_cuda), 1, spin=False)


def test_onnxruntime_for_gpus_takes_no_cpus_layer(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_onnxruntime", lambda: Runtime(gpu.PROVIDER))
    with pytest.raises(LayerError, match=r"is the build for GPUs\. Build the GPU's layer with --target cuda"):
        session.open_session(opened(minilm), 1, spin=False)


class Counting:
    """A session that notes what its runs were of: their lengths; vectors are by the first token and the length."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []

    def run(self, _outputs: list[str], feed: Any, _options: Any = None, /) -> list[npt.NDArray[np.float32]]:
        lengths = feed["lengths"]
        self.runs.append(lengths.tolist())
        first = feed["input_ids"][lengths.cumsum() - lengths]
        return [np.stack([first, lengths], axis=1).astype(np.float32)]


def test_runs_on_a_gpu_are_large_and_one_at_a_time(engine: Engine) -> None:
    counting = Counting()
    texts = [[number, *[7] * 99] for number in range(400)]
    found = Engine(engine.tokens, counting, 2, CUDA.together, target=CUDA).encode(texts)
    assert found.tolist() == [[number, 100] for number in range(400)]
    assert [len(each) for each in counting.runs] == [163, 163, 74], "16,300 tokens are in the first"


def test_of_short_texts_so_many_share_a_run_that_their_offsets_are_small(engine: Engine) -> None:
    counting = Counting()
    texts = [[number, 1, 2] for number in range(1200)]
    Engine(engine.tokens, counting, 2, CUDA.together, target=CUDA).encode(texts)
    assert [len(each) for each in counting.runs] == [512, 512, 176]
    pace = Pace(1024, CUDA.together, target=CUDA)
    assert pace.cost([3] * 513) - pace.cost([3] * 512) > CUDA.run, "and what a run costs is counted as often"


def test_what_work_costs_is_told_by_what_does_it() -> None:
    ratios = [Pace(1024, target=target).cost([8192]) / Pace(1024, target=target).cost([512]) for target in (CPU, CUDA)]
    assert ratios[1] < ratios[0], "attention is cheaper on a GPU, beside the rest"


def test_the_start_makes_a_full_run_and_serves_on_the_gpus_terms(
    for_cuda: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting()
    monkeypatch.setattr(engines, "open_session", lambda *_, **__: counting)
    facts = replace(manifest.load(for_cuda), dimensions=2)
    loaded = Engine.load(Layer(for_cuda, facts), Settings(threads=4))
    [first] = counting.runs
    assert CUDA.warm * 0.8 < sum(first) <= CUDA.warm
    assert max(first) == facts.context == 256

    counting.runs.clear()
    loaded.encode([[number] * 8192 for number in (1, 2, 3)])
    assert counting.runs == [[8192, 8192], [8192]]
    assert loaded._turns._at_once == 1, "whatever THREADS says"


def test_the_engine_serves_the_graph_that_ships(seeded_cuda: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a session of its stand-in, from text to vectors, whole runs of many texts packed."""
    monkeypatch.setattr(gpu, "find", lambda: L4)
    monkeypatch.setattr(engines, "open_session", lambda opened, *_, **__: run.session(opened.folder / GRAPH))
    monkeypatch.setattr(engines, "TARGETS", {"cuda": replace(CUDA, warm=0)})  # which takes a CPU half a minute
    config = Settings(model_dir=str(seeded_cuda))
    served = Engine.load(open_layer(config), config)
    texts = ["the quick brown fox", "jumps", "over the lazy dog, and that is all there is to say about it"]
    found = served.encode(served.tokens.encode(texts))
    assert np.einsum("ij,ij->i", found, run.embed(seeded_cuda, texts)).min() > 0.99999
