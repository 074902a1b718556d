"""`make bench-ledger`: many concurrent small requests of eight keys, and a ledger that agrees with what was answered.

Through the plain server, some through a function URL, some with an Idempotency-Key or as an SDK's retry, each of these
twice. Prints a row a key, what recording cost each request, and exits 1 if a single token differs.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import httpx

from handler import store
from handler.billing.ledger import Attempt, Ledger, Record, Work
from handler.billing.limits import Counters
from handler.billing.register import Register
from handler.events.drain import Drain
from tests.conftest import ENTRY, HOUSE, serving
from tests.stack.frontdoor import FrontDoor
from tests.stack.ministack import MiniStack, Tables
from tests.stack.queues import Queue
from tests.stack.server import PlainServer

MODEL = "all-minilm-l6-v2"
KEYS, URLS = 8, 2
_TEXT = "A lake of cold water lies between two old hills where nobody has built anything for a very long time. "


@dataclass
class Tally:
    """What a key's calls were answered: each call's tokens once, however often it was repeated."""

    account: str
    requests: int = 0
    replays: int = 0
    tokens: dict[str, int] = field(default_factory=dict)


@dataclass
class Result:
    tallies: list[Tally]
    billed: Counter[str]
    waited: int  # records that came by the ledger queue
    record_ms: list[float]

    @property
    def differences(self) -> int:
        return sum(abs(sum(each.tokens.values()) - self.billed[each.account]) for each in self.tallies)


@dataclass
class Run:
    """Servers, the keys of their callers, and what came of it."""

    plain: str
    function: str
    keys: dict[str, Tally]
    record_ms: list[float] = field(default_factory=list)

    async def all(self, requests: int) -> None:
        """So many calls at once; one in ten goes to the function URL, whose environments take one each."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)  # a server closes idle ones
        environments = asyncio.Semaphore(URLS)
        async with httpx.AsyncClient(timeout=600, limits=limits) as http:
            calls = [self._call(http, number, environments) for number in range(requests)]
            await asyncio.gather(*calls)

    async def _call(self, http: httpx.AsyncClient, number: int, environments: asyncio.Semaphore) -> None:
        key = list(self.keys)[number % KEYS]
        text = f"{number} {_TEXT[: 3 * (number % 34)]}"
        named, retried = number % 10 == 1, number % 10 == 2
        attempts = [{"x-stainless-retry-count": "0"}]
        if named:
            attempts = [{"idempotency-key": f"call {number}"}] * 2
        elif retried:
            attempts.append({"x-stainless-retry-count": "1"})
        for headers in attempts:
            if number % 10 == 0:
                async with environments:
                    await self._ask(http, self.function, key, text, headers)
            else:
                await self._ask(http, self.plain, key, text, headers)

    async def _ask(self, http: httpx.AsyncClient, url: str, key: str, text: str, headers: dict[str, str]) -> None:
        answer = await http.post(
            f"{url}/v1/embeddings",
            json={"model": MODEL, "input": text, "encoding_format": "base64"},
            headers={"authorization": f"Bearer {key}", "x-emblet-timing": "true"} | headers,
        )
        answer.raise_for_status()
        tally = self.keys[key]
        tally.requests += 1
        tally.replays += "x-emblet-replay" in answer.headers
        tally.tokens[text] = answer.json()["usage"]["total_tokens"]
        timing = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
        self.record_ms.append(float(timing["record"]))


def measure(env: dict[str, str], tables: Tables, folder: Path, requests: int) -> Result:
    """`env`: of a service that serves MODEL and has these tables."""
    queue = Queue()
    env = env | {"LEDGER_QUEUE": queue.url, "MAX_QUEUE_SECONDS": "600", "MAX_QUEUE_REQUESTS": str(requests)}
    accounts = [f"acct_bench_{number}" for number in range(KEYS)]
    keys = {tables.create_key(account, "inference"): Tally(account) for account in accounts}
    with PlainServer(env, HOUSE, folder / "plain.log") as plain, FrontDoor(ENTRY, env, cwd=HOUSE, size=URLS) as urls:
        run = Run(plain.url, urls.url, keys)
        asyncio.run(run.all(requests))
    waited = queue.deliver(
        Drain(
            Ledger(store.dynamodb, tables.usage, tables.entries),
            Counters(store.dynamodb, tables.limits),
            Register(store.dynamodb, tables.rollups),
        )
    )
    billed: Counter[str] = Counter()
    for item in tables.records():
        account = item["pk"]["S"].partition("#")[0]
        if account in accounts:  # others may have written what cannot be read
            billed[account] += int(item["tokens"]["N"])
    return Result(list(keys.values()), billed, waited, sorted(run.record_ms))


def table(result: Result) -> Iterator[str]:
    yield f"{'account':<14}{'requests':>10}{'replays':>9}{'answered':>10}{'billed':>9}{'difference':>12}"
    for each in result.tallies:
        answered, billed = sum(each.tokens.values()), result.billed[each.account]
        yield (
            f"{each.account:<14}{each.requests:>10}{each.replays:>9}{answered:>10}{billed:>9}{billed - answered:>12}"
        )
    median, late = statistics.median(result.record_ms), result.record_ms[len(result.record_ms) * 99 // 100]
    yield f"recording under load, emulator included: median {median:.1f} ms, 99th percentile {late:.1f} ms"
    yield f"records that came by the ledger queue: {result.waited}"


@dataclass
class Cost:
    """What recording takes beyond the round trip itself, in ms of each record, ascending: by the clock, which goes on
    while other programs have the processor, and by the processor's own. `trips`: round trips of each."""

    clock_ms: list[float]
    processor_ms: list[float]
    trips: list[int]


def cost(tables: Tables, records: int = 300) -> Cost:
    """Of so many ordinary records, each on its own."""
    client = store.ledger()
    session = client._endpoint.http_session  # type: ignore[attr-defined]
    real, trips = session.send, list[tuple[float, float]]()

    def timed(request: object) -> object:
        start = _now()
        try:
            return real(request)
        finally:
            trips.append(_since(start))

    ledger, taken = Ledger(store.ledger, tables.usage), list[tuple[float, float, int]]()
    session.send = timed
    try:
        for number in range(records):
            work = Work(f"{number:032x}", f"{number:064x}"[::-1], datetime.now(UTC), "http", attempt=Attempt(0, 600.0))
            record = Record(work, "acct_cost", "key_1", MODEL, 5, 1, Decimal("0.01"))
            trips.clear()
            start = _now()
            ledger.write(record)
            clock, processor = _since(start)
            taken.append(
                (clock - sum(each for each, _ in trips), processor - sum(each for _, each in trips), len(trips))
            )
    finally:
        session.send = real
    clocks, processors, counts = zip(*taken, strict=True)
    return Cost(sorted(clocks), sorted(processors), list(counts))


def _now() -> tuple[float, float]:
    return time.perf_counter() * 1e3, time.thread_time() * 1e3


def _since(start: tuple[float, float]) -> tuple[float, float]:
    clock, processor = _now()
    return clock - start[0], processor - start[1]


def told(cost: Cost) -> str:
    def both(ms: list[float]) -> str:
        return f"median {statistics.median(ms):.2f} ms, 90th percentile {ms[len(ms) * 9 // 10]:.2f} ms"

    return f"a record's cost beyond its round trip: {both(cost.clock_ms)}; of the processor {both(cost.processor_ms)}"


@contextmanager
def stack(folder: Path) -> Iterator[tuple[dict[str, str], Tables]]:
    with MiniStack(HOUSE / ".venv-ministack/bin/ministack", folder) as ministack:
        os.environ.update(ministack.env)
        yield ministack.env, ministack.create_tables(HOUSE / "template.yaml")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000, help="calls at once; default 1,000")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, stack(Path(name)) as (env, tables):
        layer = HOUSE / "model_layer/out" / MODEL
        result = measure(serving(env, tables, layer), tables, Path(name), asked.requests)
        alone = cost(tables)
    print("\n".join([*table(result), told(alone)]))
    print("the ledger agrees to the token" if not result.differences else f"{result.differences} tokens differ")
    return int(result.differences > 0)


if __name__ == "__main__":
    sys.exit(main())
