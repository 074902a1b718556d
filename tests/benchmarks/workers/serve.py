"""A worker's side: one peer in a process of its own, asked in lines of JSON on stdin, answering on what was stdout.

    {"threads": 2, ...}         {"ready": true}                 the peer's options
    {"texts": [[0, 5, 2]]}      {"texts": 1}                    ids of texts, kept until others come
    {"pass": 8}                 {"pass": [30, 0.61]}            encoded 30 times in batches of 8, timed here
    {"vectors": 8}              {"vectors": "AAAA..."}          the same, and base64 of what came of it

With the argument `prepare` it makes the files that the peer loads, in a process that ends then, so that what it needs
is not counted as the peer's memory.
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

# Of a pass, at least: a single text takes some milliseconds, and of these most to fetch weights that the peer before it
# has thrown out of the cache.
_LEAST_S = 0.5

Texts = list[list[int]]
Options = dict[str, Any]


def as_is(texts: Texts) -> Any:
    return texts


def as_text(texts: Texts) -> Any:
    """For peers that take text alone: the checkpoint's tokenizer reads it as ids (see checkpoint.py)."""
    return [" ".join(f"<{token}>" for token in ids) for ids in texts]


@dataclass(frozen=True)
class Loaded:
    """`encode` takes what `given` made of the texts, and a batch size; float32 [texts, dimensions], L2-normalized."""

    encode: Callable[[Any, int], Any]
    given: Callable[[Texts], Any] = as_is


def main(load: Callable[[Options], Loaded], prepare: Callable[[Options], None] | None = None) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries may print what they like
    options: Options = json.loads(sys.stdin.readline())
    if prepare is not None and sys.argv[1:] == ["prepare"]:
        prepare(options)
        return

    def answer(name: str, value: object) -> None:
        print(json.dumps({name: value}), file=answers, flush=True)

    peer = load(options)
    answer("ready", True)
    given: Any = None
    for line in sys.stdin:
        [(asked, value)] = json.loads(line).items()
        if asked == "texts":
            given = peer.given(value)
            answer(asked, len(value))
            continue
        times, start = 0, time.perf_counter()
        while True:
            vectors, times = peer.encode(given, value), times + 1
            seconds = time.perf_counter() - start
            if asked != "pass" or seconds >= _LEAST_S:
                break
        if asked == "pass":
            answer(asked, [times, seconds])
        else:
            answer(asked, base64.b64encode(np.ascontiguousarray(vectors, np.float32).tobytes()).decode())
