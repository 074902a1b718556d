"""`make bench-soak`: thousands of varied requests to one plain server, and whether its memory grows."""

import argparse
import random
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.benchmarks.ledger import MODEL, stack
from tests.conftest import HOUSE, serving
from tests.stack.server import PlainServer

CALLERS, LOOKS = 4, 20
_WORDS = (HOUSE / "README.md").read_text(encoding="utf-8").split()


@dataclass(frozen=True)
class Look:
    """The server's memory after so many requests, MiB that are its own."""

    requests: int
    mib: float


def body(number: int) -> dict[str, Any]:
    """The request of this number: one text or up to 60, of 1 to 150 words, in either encoding; now and then one that is
    refused, one with an unknown model, and a large one."""
    draw = random.Random(number)
    texts = [
        " ".join(draw.choices(_WORDS, k=draw.choice((1, 5, 20, 150)))) for _ in range(draw.choice((1, 1, 1, 4, 60)))
    ]
    if number % 50 == 7:
        texts = ["word " * 5000]
    model = "no such model" if number % 50 == 9 else MODEL
    return {
        "model": model,
        "input": texts[0] if len(texts) == 1 else texts,
        "encoding_format": draw.choice(("float", "base64")),
    }


def looks(env: Mapping[str, str], key: str, folder: Path, requests: int) -> Iterator[Look]:
    """Memory after each twentieth of the requests."""
    headers = {"authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=CALLERS, max_keepalive_connections=CALLERS)
    with (
        PlainServer(env, HOUSE, folder / "soak.log") as server,
        httpx.Client(base_url=server.url, headers=headers, limits=limits, timeout=120) as http,
        ThreadPoolExecutor(CALLERS) as callers,
    ):

        def call(number: int) -> None:
            answer = http.post("/v1/embeddings", json=body(number))
            assert answer.status_code in (200, 400, 404), answer.text

        for look in range(LOOKS):
            list(callers.map(call, range(requests * look // LOOKS, requests * (look + 1) // LOOKS)))
            rollup = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text()
            yield Look(requests * (look + 1) // LOOKS, int(re.findall(r"^Anonymous: +(\d+)", rollup, re.M)[0]) / 1024)


def growth(seen: list[Look]) -> float:
    """MiB by which the second half's least is above the first half's most after a fifth of the requests: what is held
    for good, and not what one request happens to hold."""
    settled, later = seen[LOOKS // 5 : LOOKS // 2], seen[LOOKS // 2 :]
    return min(each.mib for each in later) - max(each.mib for each in settled)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000, help="default 10,000")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, stack(Path(name)) as (aws, tables):
        env, key = serving(aws, tables, HOUSE / "model_layer/out" / MODEL), tables.create_key("acct_soak", "inference")
        seen = []
        for look in looks(env, key, Path(name), asked.requests):
            print(f"{look.requests:>8,} requests {look.mib:>8.1f} MiB", flush=True)
            seen.append(look)
    print(f"growth between the halves: {growth(seen):+.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
