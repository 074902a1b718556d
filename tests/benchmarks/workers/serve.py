"""A worker's side: one peer in a process of its own, asked in lines of JSON on stdin, answering on what was stdout.

    worker OPTIONS            {"ready": seconds}
    {"load": [[0, 5, 2]]}     {"loaded": 1}                       ids of texts, held until the next
    {"batch": 8}              {"seconds": 0.12}                   encoded once, timed here: the pipe costs nobody anything
    {"vectors": 8}            {"vectors": "base64 of float32"}    the same, and what came of it

`worker prepare OPTIONS` makes the files that the peer loads, in another process, so that what that needs is not
counted as the peer's memory.
"""

import base64
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Texts = list[list[int]]
Options = dict[str, Any]


def as_is(texts: Texts) -> Any:
    return texts


def as_text(texts: Texts) -> Any:
    """For peers that take text alone: the checkpoint's tokenizer reads these as ids (tests/benchmarks/checkpoint.py)."""
    return [" ".join(f"<{token}>" for token in ids) for ids in texts]


@dataclass(frozen=True)
class Loaded:
    """`encode` takes what `given` makes of the texts, and a batch size; float32 [texts, dimensions], L2-normalized."""

    encode: Callable[[Any, int], Any]
    given: Callable[[Texts], Any] = as_is


def main(load: Callable[[Options], Loaded], prepare: Callable[[Options], None] | None = None) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries may print what they like
    if sys.argv[1] == "prepare":
        if prepare is not None:
            prepare(json.loads(sys.argv[2]))
        return

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    start = time.perf_counter()
    peer = load(json.loads(sys.argv[1]))
    answer({"ready": time.perf_counter() - start})
    given: Any = None
    for line in sys.stdin:
        [(asked, value)] = json.loads(line).items()
        if asked == "load":
            given = peer.given(value)
            answer({"loaded": len(value)})
            continue
        start = time.perf_counter()
        vectors = peer.encode(given, value)
        seconds = time.perf_counter() - start
        if asked == "batch":
            answer({"seconds": seconds})
        else:
            answer({"vectors": base64.b64encode(np.ascontiguousarray(vectors, np.float32).tobytes()).decode()})
