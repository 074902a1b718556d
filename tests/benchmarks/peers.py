"""Who is compared: ours and its peers, each in the strongest form that was found for it (tests/benchmarks/NOTES.md)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Made:
    """Files that are made once for a model, by the worker of an environment."""

    environment: str
    worker: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    title: str
    precision: str  # "int8" or "fp32": of its matrix products
    environment: str | None  # of .venv-peers; None: our own
    worker: str
    options: Mapping[str, Any] = field(default_factory=dict)
    batches: tuple[int, ...] = (0,)  # batch sizes to try, the likeliest best first; 0: it has a policy of its own
    made: str | None = None  # the files that it loads
    extra: bool = False  # has its turn only where it is asked for by name


MADE = {
    "onnx-int8": Made("sentence-transformers-onnx", "sentences"),
    "openvino-static": Made("openvino", "vino", {"static": True}),
    "openvino-dynamic": Made("openvino", "vino", {"static": False}),
}

OURS, REFERENCE = "emblet", "emblet-fp32"
_LATENCY = {"hint": "LATENCY", "streams": 1}
_STREAMS = {"hint": "THROUGHPUT", "streams": 2}

PEERS = {
    OURS: Peer("**emblet**", "int8", None, "emblet", {"precision": "int8"}),
    REFERENCE: Peer("emblet, fp32 layer", "fp32", None, "emblet", {"precision": "fp32"}),
    "emblet-avx2": Peer("emblet, AVX2 alone", "int8", None, "haswell", {"precision": "int8"}, extra=True),
    "emblet-fp32-avx2": Peer(
        "emblet, fp32 layer, AVX2 alone", "fp32", None, "haswell", {"precision": "fp32"}, extra=True
    ),
    "openvino-static": Peer(
        "OpenVINO, NNCF static int8, latency", "int8", "openvino", "vino", _LATENCY, made="openvino-static"
    ),
    "openvino-static-streams": Peer(
        "OpenVINO, NNCF static int8, 2 streams", "int8", "openvino", "vino", _STREAMS, made="openvino-static"
    ),
    "openvino-dynamic": Peer(
        "OpenVINO, dynamic int8, latency", "int8", "openvino", "vino", _LATENCY, made="openvino-dynamic"
    ),
    "openvino-dynamic-streams": Peer(
        "OpenVINO, dynamic int8, 2 streams", "int8", "openvino", "vino", _STREAMS, made="openvino-dynamic"
    ),
    "sentence-transformers-onnx": Peer(
        "sentence-transformers, ONNX int8",
        "int8",
        "sentence-transformers-onnx",
        "sentences",
        {"backend": "onnx"},
        (1, 4),
        "onnx-int8",
    ),
    "fastembed": Peer("fastembed, the same ONNX int8", "int8", "fastembed", "fast", {}, (1,), "onnx-int8"),
    "infinity-int8": Peer("infinity, int8 on torch", "int8", "infinity", "infinity", {"dtype": "int8"}, (4,)),
    "infinity": Peer("infinity, fp32 on torch", "fp32", "infinity", "infinity", {"dtype": "float32"}, (4,)),
    "sentence-transformers": Peer(
        "sentence-transformers, fp32 on torch",
        "fp32",
        "sentence-transformers",
        "sentences",
        {"backend": "torch"},
        (4, 1, 8, 32),
    ),
}
