"""Who is compared on a GPU, on what, and how far from float32 our vectors may be."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from handler.engine.manifest import FP32
from tests.benchmarks import loads
from tests.benchmarks.loads import Load
from tests.benchmarks.peers import OURS


@dataclass(frozen=True)
class Peer:
    title: str
    worker: str
    options: Mapping[str, Any] = field(default_factory=dict)
    batches: tuple[int, ...] = (0,)  # batch sizes to try; 0: it has a policy of its own
    environment: str | None = None  # of .venv-peers, where there is no GPU; None: our own


INT8, AGAIN, THEIRS = f"{OURS}-int8", f"{OURS}-fp32", "sentence-transformers"
PEERS = {
    OURS: Peer("**emblet**, fp16", "rows", {"precision": "fp16"}),
    INT8: Peer("emblet, 8-bit weights", "rows", {"precision": "int8"}),
    AGAIN: Peer("emblet, fp16 weights in fp32 arithmetic", "rows", {"precision": "fp16", "graph": FP32}),
    THEIRS: Peer("sentence-transformers, fp16, sdpa", "half", {}, (32, 64, 256), THEIRS),
}
COSINES = {OURS: 0.999, INT8: 0.99, AGAIN: 0.999}  # of each vector with float32's, at least


def _many() -> tuple[int, ...]:
    drawn = np.random.default_rng(2).lognormal(np.log(64), 1, 256)
    return tuple(int(length) for length in np.clip(np.rint(drawn), 8, 512))


LOADS = {
    "1x16": loads.uniform(1, 16),
    "1x128": loads.uniform(1, 128),
    "mixed": loads.LOADS["mixed"],
    "256xmixed": Load("256xmixed", f"256 texts of 8 to 512 tokens, likewise, {sum(_many()):,} in all", _many()),
    "32x512": loads.uniform(32, 512),  # full batches: no padding for anybody
    "1x8192": loads.uniform(1, 8192),
}
