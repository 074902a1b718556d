"""`make bench-concurrency`: many callers of one engine.

A plain server, whose runs callers share, against the same server whose session has one request at a time, and nothing
of what sharing takes (onebyone.py); and a Managed Instances environment of one process with a thread for each call
(handler/runtime.py) against one of as many processes (awslambdaric). Each request is one text of 5 to 60 words. What is
compared takes turns; medians are told. Whether one caller loses anything is asked of both servers text by text: the
ratio of two answers' times, one right after the other, is told with how exactly it is known.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.benchmarks import machine
from tests.benchmarks.callers import Load, load, memory_mib, pairs, text
from tests.benchmarks.ledger import stack
from tests.conftest import ENTRY, HOUSE, serving
from tests.stack import managed
from tests.stack.emulator import session
from tests.stack.managed import ManagedInstance
from tests.stack.payload import to_event
from tests.stack.process import Process, free_port

ONE_BY_ONE = "tests.benchmarks.onebyone:create_app"
RIC = ["/bin/sh", "-c", "AWS_EXECUTION_ENV=AWS_Lambda_python3.13 exec python -m awslambdaric handler.entry.handler"]


@dataclass(frozen=True)
class Target:
    """Something that answers POSTs to `url`; `pids` are its processes, but for an emulator's own."""

    name: str
    url: str
    pids: Sequence[int]


Results = dict[tuple[int, str], list[Load]]


def rounds(
    targets: Sequence[Target],
    head: dict[str, str],
    bodies: "Bodies",
    callers: Sequence[int],
    passes: int,
    seconds: float,
) -> Results:
    found: Results = {}
    for target in targets:  # a warm-up
        load(target.url, head, bodies, max(callers), min(1.0, seconds), target.pids)
    for turn in range(passes):
        for number in callers:
            for target in targets if turn % 2 else reversed(targets):
                print(f"pass {turn + 1} of {passes}: {target.name}, {number} callers", file=sys.stderr)
                got = load(target.url, head, bodies, number, seconds, target.pids)
                found.setdefault((number, target.name), []).append(got)
    return found


class Bodies:
    """Requests' bodies by number; for the emulator within events."""

    def __init__(self, model: str, key: str, *, events: bool) -> None:
        self._model, self._key, self._events = model, key, events

    def __call__(self, number: int) -> bytes:
        body = json.dumps({"model": self._model, "input": text(number)}).encode()
        if not self._events:
            return body
        headers = [("authorization", f"Bearer {self._key}")]
        return json.dumps(to_event("POST", "/v1/embeddings", headers, body, "127.0.0.1")).encode()


@contextmanager
def servers(env: Mapping[str, str], folder: Path) -> Iterator[list[Target]]:
    """Both side by side: one of them has nothing to do while the other is asked."""
    with ExitStack() as running:
        targets = []
        for name, application in (("one at a time", ONE_BY_ONE), ("shared runs", "handler.api.app:create_app")):
            port = free_port()
            script = (HOUSE / "handler/entry.sh").read_text().replace("handler.api.app:create_app", application)
            url = f"http://127.0.0.1:{port}"
            server = Process(["sh", "-c", script], {**env, "PORT": str(port)}, HOUSE, folder / name, f"{url}/ready")
            running.callback(server.stop)
            targets.append(Target(name, f"{url}/v1/embeddings", [server.pid]))
        yield targets


def plain(
    env: Mapping[str, str], model: str, key: str, folder: Path, callers: Sequence[int], passes: int, seconds: float
) -> Results:
    with servers(env, folder) as targets:
        return rounds(targets, _head(key), Bodies(model, key, events=False), callers, passes, seconds)


def single(env: Mapping[str, str], model: str, key: str, folder: Path, seconds: float) -> str:
    """What one caller waits for, as a sentence."""
    with servers(env, folder) as targets:
        urls, bodies = [target.url for target in targets], Bodies(model, key, events=False)
        pairs(urls, _head(key), bodies, min(2.0, seconds))  # a warm-up
        found = pairs(urls, _head(key), bodies, seconds)
    alone, shared = (statistics.median(took) for took in zip(*found, strict=True))
    low, ratio, high = middle([mine / other for other, mine in found])
    return (
        f"One caller, {len(found):,} texts at both by turns: {alone:.2f} ms one at a time, {shared:.2f} ms with shared "
        f"runs; {ratio:.3f} of the time, with 95 % certainty {low:.3f} to {high:.3f}"
    )


def middle(values: Sequence[float]) -> tuple[float, float, float]:
    """The median of a distribution that these are drawn from, between what it lies between with 95 % certainty: of
    ordered values as many lie below it as of tosses of a coin are heads."""
    ordered, half = sorted(values), len(values) / 2
    reach = 0.98 * math.sqrt(len(values))
    low, high = max(0, math.floor(half - reach)), min(len(ordered) - 1, math.ceil(half + reach))
    return ordered[low], statistics.median(ordered), ordered[high]


def _head(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", "content-type": "application/json"}


def instances(
    env: Mapping[str, str], model: str, key: str, at_once: int, passes: int, seconds: float
) -> tuple[Results, dict[str, float]]:
    """What they answer, and their memory in MiB."""
    with ExitStack() as running:
        targets = []
        for name, command in (("a process for each call", RIC), ("one process", ENTRY)):
            instance = ManagedInstance(command, env, cwd=HOUSE, concurrency=at_once, memory_mb=4096)
            running.enter_context(instance)
            instance.warm(to_event("GET", "/health", [], b"", "127.0.0.1"))
            pids = [pid for pid in session(instance.pid) if pid != instance.pid]
            targets.append(Target(name, instance.endpoint, pids))
        head = {"content-type": "application/json"}
        found = rounds(targets, head, Bodies(model, key, events=True), [at_once], passes, seconds)
        return found, {target.name: memory_mib(target.pids) for target in targets}


def table(results: Results, memory: Mapping[str, float]) -> Iterator[str]:
    names = list(dict.fromkeys(name for _, name in results))
    yield "| callers | | answers/s | p50 | p99 | processor time of an answer |" + (" memory |" if memory else "")
    yield "|---" * (7 if memory else 6) + "|"
    for (callers, name), loads in results.items():
        rate, median, late, spent = (
            statistics.median(getattr(each, what) for each in loads)
            for what in ("rate", "median", "late", "processor_ms")
        )
        share = ""
        if name != names[0]:
            ratios = (mine.rate / other.rate for mine, other in zip(loads, results[callers, names[0]], strict=True))
            share = f" ({statistics.median(ratios):.2f}×)"
        held = f" {memory[name]:,.0f} MiB |" if memory else ""
        yield f"| {callers} | {name} | {rate:,.0f}{share} | {median:.1f} ms | {late:.1f} ms | {spent:.1f} ms |{held}"


def ordered(results: Results) -> Results:
    return dict(sorted(results.items(), key=lambda each: (each[0][0], each[0][1] in ("shared runs", "one process"))))


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-concurrency ARGS=...", description=__doc__.splitlines()[0])
    parser.add_argument("--layer", default="all-minilm-l6-v2", help="folder in model_layer/out")
    parser.add_argument("--model", help="its model's name, where that is another")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 4, 16, 64], help="of a plain server")
    parser.add_argument("--at-once", type=int, default=16, help="calls of an environment; default 16")
    parser.add_argument("--passes", type=int, default=5, help="of each; default 5")
    parser.add_argument("--seconds", type=float, default=5, help="of a pass; default 5")
    parser.add_argument("--single", type=float, default=60, help="seconds for one caller's texts; default 60")
    asked = parser.parse_args()
    model = asked.model or asked.layer
    with tempfile.TemporaryDirectory() as name, stack(Path(name)) as (aws, tables):
        env = serving(aws, tables, HOUSE / "model_layer/out" / asked.layer)
        key = tables.create_key("acct_callers", "inference")
        print(f"{model} on {machine.processor()}\n")
        print(single(env, model, key, Path(name), asked.single), f"\n{machine.busy()}\n", flush=True)
        measure = partial(plain, env, model, key, Path(name), asked.callers, asked.passes, asked.seconds)
        print("\n".join(table(ordered(measure()), {})), f"\n{machine.busy()}\n")
        if not managed.possible():
            print("Managed Instances: only root makes the namespace that the emulator's mode needs")
            return 0
        results, memory = instances(env, model, key, asked.at_once, asked.passes, asked.seconds)
        print("\n".join(table(ordered(results), memory)), f"\n{machine.busy()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
