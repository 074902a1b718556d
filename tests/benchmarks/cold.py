"""`make bench-cold`: from the start of a process to its first answer, step by step, under Lambda's emulator.

With the memory, and where this user may make a cgroup with the share of processors, of each of two functions; with
what is on disk in the page cache and not in it. DynamoDB is MiniStack, whose milliseconds are in the first answer.
With `--long`, also the longest text in a function of 2,048 MB, more of which the kernel does not let it have.
"""

import argparse
import contextlib
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from handler.engine.cpu import MB_PER_VCPU
from handler.engine.manifest import WEIGHTS, load
from tests.benchmarks.ledger import stack
from tests.conftest import ENTRY, HOUSE, serving
from tests.stack import cgroup
from tests.stack.emulator import Emulator, session
from tests.stack.payload import to_event
from tests.stack.server import PlainServer

LAMBDA_MOST_S = 900
LAMBDA_INIT_MS = 10_000  # AWS Lambda developer guide: an init that takes longer is begun anew
MEMORY_MB = (MB_PER_VCPU, 2 * MB_PER_VCPU)
LEAST_MB = 2048  # of a function that serves the longest text
_MIB = 1 << 20
_DROP = Path("/proc/sys/vm/drop_caches")
_LOADED = re.compile(r"loaded \S+: tokenizer (\d+) ms, session (\d+) ms, first run (\d+) ms, (\d+) threads")
_INIT = re.compile(r"init done in (\d+) ms")


@dataclass(frozen=True)
class Start:
    """Milliseconds of a start, and MiB of memory behind it. Tokenizer and session load side by side, beside the HTTP
    application; all three are in `loading`."""

    interpreter: float  # until our own code begins: Python, the runtime's client, its imports
    tokenizer: float
    session: float
    first_run: float
    loading: float
    init: float  # what the runtime reports
    first_request: float
    total: float  # process start → first answer
    anonymous: float
    mapped: float
    read: float  # from storage


def run(env: Mapping[str, str], key: str, model: str, memory_mb: int) -> Start:
    """One start under the emulator, and one request of one short text."""
    event = _event(key, model, "the quick brown fox")
    with cgroup.limited(memory_mb / MB_PER_VCPU) as group, _function(env, memory_mb, group) as emulator:
        start = time.perf_counter()
        answer = emulator.invoke(event)
        total = (time.perf_counter() - start) * 1e3
        assert answer["statusCode"] == 200, answer
        log, [first] = emulator.log, emulator.invocations_ms
        runtime = _runtime(emulator)
        tokenizer, opened, first_run, _ = map(float, _found(_LOADED, log))
        [loading] = map(float, _found(_INIT, log))
        rollup = _kib(_proc(runtime, "smaps_rollup"))
        return Start(
            emulator.init_ms - loading, tokenizer, opened, first_run, loading, emulator.init_ms, first, total,
            rollup["Anonymous"] / 1024, (rollup["Rss"] - rollup["Anonymous"]) / 1024,
            int(re.findall(rb"read_bytes: (\d+)", _proc(runtime, "io"))[0]) / _MIB,
        )  # fmt: skip


@dataclass(frozen=True)
class Longest:
    """The longest text in a function of so little memory."""

    tokens: int  # special ones included
    seconds: float
    peak_mib: float  # VmHWM: of what is mapped, all that was ever there at once
    enforced: bool  # whether the kernel would have killed what takes more


def longest(env: Mapping[str, str], key: str, model: str, memory_mb: int = LEAST_MB) -> Longest:
    """One text as long as the layer takes, after a start of its own."""
    layer = load(Path(env["MODEL_DIR"]))
    with (
        cgroup.limited(memory_mb / MB_PER_VCPU, memory_mb) as group,
        _function(env, memory_mb, group) as emulator,
    ):
        emulator.invoke(_event(key, model, "hello"))
        answer = emulator.invoke(_event(key, model, " ".join(["the"] * layer.content_tokens)))
        assert answer["statusCode"] == 200, answer
        assert json.loads(answer["body"])["usage"]["prompt_tokens"] == layer.content_tokens
        peak = _kib(_proc(_runtime(emulator), "status"))["VmHWM"] / 1024
        return Longest(layer.context, emulator.invocations_ms[-1] / 1e3, peak, group is not None)


def _event(key: str, model: str, text: str) -> dict[str, Any]:
    body = json.dumps({"model": model, "input": text, "encoding_format": "base64"}).encode()
    return to_event("POST", "/v1/embeddings", [("authorization", f"Bearer {key}")], body, "127.0.0.1")


@contextmanager
def _function(env: Mapping[str, str], memory_mb: int, group: cgroup.Group | None) -> Iterator[Emulator]:
    with Emulator(ENTRY, env, cwd=HOUSE, memory_mb=memory_mb, timeout_s=LAMBDA_MOST_S) as emulator:
        if group is not None:
            cgroup.join(group, emulator.pid)  # and the runtime with it, which is started at the first call
        yield emulator


def _runtime(emulator: Emulator) -> int:
    [found] = [each for each in session(emulator.pid) if b"awslambdaric" in _proc(each, "cmdline")]
    return found


def second_mib(env: Mapping[str, str], folder: Path) -> tuple[float, float]:
    """Memory that a second plain server over the same layer has to itself, all of it and what of it is anonymous."""
    with PlainServer(env, HOUSE, folder / "one.log"), PlainServer(env, HOUSE, folder / "two.log") as second:
        rollup = _kib(_proc(second.process.pid, "smaps_rollup"))
    return (rollup["Private_Clean"] + rollup["Private_Dirty"]) / 1024, rollup["Anonymous"] / 1024


def _found(pattern: re.Pattern[str], log: str) -> tuple[str, ...]:
    if (found := pattern.search(log)) is None:
        raise AssertionError(f"no {pattern.pattern!r} in the log:\n{log}")
    return found.groups()


def _proc(pid: int, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


def _kib(text: bytes) -> dict[str, int]:
    return {name.decode(): int(value) for name, value in re.findall(rb"^(\w+):\s+(\d+) kB", text, re.M)}


def forget(layer: Path) -> str:
    """Take what is on disk out of the page cache; what of it, in words."""
    os.sync()
    with contextlib.suppress(OSError):
        _DROP.write_text("3")
        return "everything"
    for path in layer.iterdir():  # without being root: clean pages of files that one may read
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return "the layer"


def reading_ms(layer: Path, mib: float) -> float:
    """How long so many MiB of the layer's weights take to be read, one after another, out of no cache."""
    forget(layer)
    left, start = int(mib * _MIB), time.perf_counter()
    with (layer / WEIGHTS).open("rb", buffering=0) as file:
        while left > 0 and (block := file.read(min(left, _MIB))):
            left -= len(block)
    return (time.perf_counter() - start) * 1e3


def median(starts: Iterable[Start]) -> Start:
    return Start(*(statistics.median(getattr(each, field.name) for each in starts) for field in fields(Start)))


def table(rows: Iterable[tuple[int, str, Start]]) -> Iterator[str]:
    names = ("interpreter", "tokenizer", "session", "first run", "init", "of 10 s", "first request", "start to answer")
    yield f"| MB | cache | {' | '.join(names)} | anonymous | mapped | read |"
    yield "|---" * (len(names) + 5) + "|"
    for memory, cache, each in rows:
        times = (each.interpreter, each.tokenizer, each.session, each.first_run, each.init)
        share, rest = f"{each.init / LAMBDA_INIT_MS:.0%}", (each.anonymous, each.mapped, each.read)
        cells = [
            *(f"{ms:,.0f} ms" for ms in times),
            share,
            f"{each.first_request:,.0f} ms",
            f"**{each.total:,.0f} ms**",
        ]
        yield f"| {memory:,} | {cache} | {' | '.join([*cells, *(f'{mib:,.0f} MiB' for mib in rest)])} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layer", default="all-minilm-l6-v2", help="folder in model_layer/out")
    parser.add_argument("--long", action="store_true", help=f"also the longest text, in {LEAST_MB:,} MB: minutes")
    parser.add_argument("--passes", type=int, default=5, help="starts of each kind; medians are told; default 5")
    asked = parser.parse_args()
    layer = HOUSE / "model_layer/out" / asked.layer
    with tempfile.TemporaryDirectory() as name, stack(Path(name)) as (aws, tables):
        env, key = serving(aws, tables, layer), tables.create_key("acct_cold", "inference")
        model = asked.layer.removesuffix("-fp32").removesuffix("-mixed")
        rows: dict[tuple[int, str], list[Start]] = {}
        run(env, key, model, MEMORY_MB[-1])  # whatever was not in the cache
        dropped = ""
        for turn in range(asked.passes):
            print(f"pass {turn + 1} of {asked.passes}", file=sys.stderr)
            for memory in MEMORY_MB:
                rows.setdefault((memory, "warm"), []).append(run(env, key, model, memory))
                dropped = forget(layer)
                rows.setdefault((memory, "cold"), []).append(run(env, key, model, memory))
        medians = [(memory, cache, median(starts)) for (memory, cache), starts in rows.items()]
        print("\n".join(table(medians)))
        print(f"cold: {dropped} was out of the page cache")
        for memory, cache, each in medians:
            if cache == "cold" and each.read:
                plain = reading_ms(layer, each.read)
                times = f"{each.total / plain:.1f} times the {plain:,.0f} ms"
                print(f"{memory:,} MB, cold: {times} of reading {each.read:,.0f} MiB, which is what it read")
        if asked.long:
            print(f"the longest text in a function of {LEAST_MB:,} MB", file=sys.stderr)
            text = longest(env, key, model)
            limit = "which the kernel holds it to" if text.enforced else "which nothing holds it to here"
            print(f"{LEAST_MB:,} MB, {limit}: {text.tokens:,} tokens in {text.seconds:.1f} s, {text.peak_mib:,.0f} MiB")
        own, anonymous = second_mib(env, Path(name))
        print(
            f"plain HTTP: a second server over the same layer has {own:,.0f} MiB to itself, {anonymous:,.0f} anonymous"
        )
        with cgroup.limited(1) as group:
            print("processors: each function's share" if group else "processors: all, because no cgroup can be made")
    return 0


if __name__ == "__main__":
    sys.exit(main())
