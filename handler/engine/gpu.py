"""The GPU: what the driver says of it, and a session of onnxruntime on it."""

import ctypes
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handler.engine.manifest import FP32, LayerError

log = logging.getLogger(__name__)

PROVIDER = "CUDAExecutionProvider"
OPTIONS = {
    "arena_extend_strategy": "kSameAsRequested",  # by doubling, a fraction of a GPU would soon have none left
    "enable_skip_layer_norm_strict_mode": "1",  # its sums in fp32
    "use_tf32": "0",  # what is fp32 in the graph is so on purpose
}

_DRIVER = "libcuda.so.1"
_LEAST_CUDA, _LEAST_CAPABILITY = 13_000, (7, 5)  # of the wheel onnxruntime-gpu 1.31
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@dataclass(frozen=True)
class Device:
    name: str
    capability: tuple[int, int]
    memory: int  # bytes, of the fraction where it is one


def find(load: Callable[[str], Any] = ctypes.CDLL) -> Device:
    """The first GPU. Raises LayerError with the driver's reason where there is none that onnxruntime can use.

    Asked of the driver itself, because onnxruntime without a GPU only logs why, and goes on with the CPU.
    """
    try:
        driver = load(_DRIVER)
    except OSError as error:
        raise LayerError(f"no GPU is here: the NVIDIA driver's library cannot be loaded ({error})") from None
    count, version, device = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if (status := driver.cuInit(0)) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        raise LayerError(f"no GPU is here: the NVIDIA driver finds none (cuInit {status})")
    driver.cuDriverGetVersion(ctypes.byref(version))
    if version.value < _LEAST_CUDA:
        had = f"{version.value // 1000}.{version.value % 1000 // 10}"
        raise LayerError(f"the NVIDIA driver is for CUDA {had}, and onnxruntime needs 13.0: driver 580 or later")
    driver.cuDeviceGet(ctypes.byref(device), 0)
    name, memory, parts = ctypes.create_string_buffer(128), ctypes.c_size_t(), (ctypes.c_int(), ctypes.c_int())
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    for part, attribute in zip(parts, (_MAJOR, _MINOR), strict=True):
        driver.cuDeviceGetAttribute(ctypes.byref(part), attribute, device)
    found = Device(name.value.decode(), (parts[0].value, parts[1].value), memory.value)
    if found.capability < _LEAST_CAPABILITY:
        has, needs = (".".join(map(str, each)) for each in (found.capability, _LEAST_CAPABILITY))
        raise LayerError(f"{found.name} has compute capability {has}, and onnxruntime needs {needs}")
    log.info("GPU %s, compute capability %d.%d, %.1f GiB", found.name, *found.capability, found.memory / (1 << 30))
    return found


def open_session(onnxruntime: Any, graph: Path, options: Any) -> Any:
    """A session of this onnxruntime on the first GPU, and nowhere else. Raises LayerError."""
    version = onnxruntime.__version__
    if PROVIDER not in onnxruntime.get_available_providers():
        raise LayerError(
            f"{graph} is for a GPU, and onnxruntime {version} here is the build for CPUs. Install onnxruntime-gpu "
            "in its place, or build the CPU's layer, without --target cuda."
        )
    if graph.name == FP32:
        # Else all matrices would be kept in fp32; each has to be there for as long as its product takes. To disable
        # ConstantFolding by its name changes nothing (1.31).
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    onnxruntime.preload_dlls(cudnn=False, directory="")  # the CUDA libraries that pip has installed
    try:
        session = onnxruntime.InferenceSession(str(graph), options, providers=[(PROVIDER, OPTIONS)])
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise LayerError(
            f"onnxruntime {version} cannot load {graph} on the GPU; its log says why, where CUDA's libraries are "
            f"missing: {error}"
        ) from None
    if session.get_providers()[0] != PROVIDER:
        raise LayerError(
            f"onnxruntime {version} has fallen back to the CPU for {graph}, which is for a GPU: its log says why."
        )
    return session
