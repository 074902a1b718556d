"""`make bench-batch`: the embedding rate of a batch's shards against the engine's own on the same inputs, by turns;
what planner and finisher take, by the number of lines; and what the real engine takes."""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from handler.contract.batches import Batch
from handler.service import Service
from tests.batches.works import Works, configured, line
from tests.benchmarks import machine, passes
from tests.benchmarks.passes import MODEL
from tests.conftest import HOUSE
from tests.stack.ministack import MiniStack

_WORDS = (HOUSE / "README.md").read_text(encoding="utf-8").split()
_STUBS: dict[str, Callable[[int], float]] = {"planner": passes.planned, "finisher": passes.finished}


def text(number: int) -> str:
    """Of 10 to 60 words, which are within the model's context."""
    draw = random.Random(number)
    return " ".join(draw.choices(_WORDS, k=draw.randrange(10, 61)))


def said(words: str) -> None:
    """Progress, for who watches."""
    print(words, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Bench:
    """The passes of batches with the real engine, all of their stores on MiniStack."""

    service: Service
    works: Works

    @classmethod
    @contextmanager
    def opened(cls, layer: str = MODEL) -> Iterator["Bench"]:
        import boto3

        from handler.billing.keytext import digest

        program = HOUSE / ".venv-ministack/bin/ministack"
        with tempfile.TemporaryDirectory() as folder, MiniStack(program, Path(folder)) as stack:
            os.environ.update(stack.env)
            tables = stack.create_tables(HOUSE / "template.yaml", "bench")
            boto3.client("s3").create_bucket(Bucket="bench")
            config = configured(HOUSE / "model_layer/out" / layer, tables, "bench")
            service = Service.open(config)
            service.load()
            key = digest(tables.create_key("acct_bench", "inference"))
            yield cls(service, Works(config, service, "acct_bench", key))

    def planned(self, lines: int) -> Batch:
        """A batch whose shards are in their queue."""
        model = self.service.models.all[0].id
        made = self.works.submit(line(str(number), text(number), model=model) for number in range(lines))
        self.works.plans.deliver(self.works.planner)
        return made

    def executed(self, batch: Batch) -> float:
        """Seconds of its shards: from the queue to results, records and counts."""
        start = time.perf_counter()
        while self.works.shards.deliver(self.works.executor):
            pass
        seconds = time.perf_counter() - start
        found = self.works.jobs.get(batch.account, batch.id)
        assert found.done == found.shards, found
        return seconds


@dataclass(frozen=True)
class Round:
    """Tokens a second: of the engine that is given all ids at once, of it with the tokenizer before, and of a batch."""

    engine: float
    tokenized: float
    batch: float


def rates(layer: str, lines: int, rounds: int) -> list[Round]:
    """Rounds of all three on the same texts, in an order that turns: the machine is not always alike."""
    found, texts = list[Round](), [text(number) for number in range(lines)]
    with Bench.opened(layer) as bench:
        engine = bench.service.bulk._engine
        ids = engine.tokens.encode(texts)
        count = sum(map(len, ids)) - 2 * len(ids)

        def alone() -> float:
            start = time.perf_counter()
            engine.encode(ids)
            return time.perf_counter() - start

        def tokenized() -> float:
            start = time.perf_counter()
            engine.encode(engine.tokens.encode(texts))
            return time.perf_counter() - start

        def batch() -> float:
            made = bench.planned(lines)
            seconds = bench.executed(made)
            assert bench.works.end(made).batch.completed == lines
            return seconds

        kinds = {"engine": alone, "tokenized": tokenized, "batch": batch}
        for number in range(rounds):
            order = [*kinds][number % 3 :] + [*kinds][: number % 3]
            now = Round(**{kind: count / kinds[kind]() for kind in order})
            said(
                f"  round {number + 1} of {rounds}: engine {now.engine:,.0f}, with its tokenizer {now.tokenized:,.0f}, "
                f"batch {now.batch:,.0f} tokens/s: {now.batch / now.engine:.1%}"
            )
            found.append(now)
    return found


def real(lines: int) -> tuple[float, float, float]:
    """MiB before the shards of a batch of so many lines are executed, at most meanwhile, and seconds."""
    with Bench.opened() as bench:
        made, before = bench.planned(lines), passes.now_mib()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (proc(5))
        return before, bench.executed(made), passes.peak_mib()


def peak(work: str, lines: int) -> tuple[float, float]:
    """MiB at most, and seconds, of a process of its own that does this much."""
    call = [sys.executable, "-m", "tests.benchmarks.batch", "--only", work, "--lines", str(lines)]
    done = subprocess.run(call, cwd=HOUSE, stdout=subprocess.PIPE, text=True, check=True)
    mib, seconds = done.stdout.split()
    return float(mib), float(seconds)


def compare(layer: str, texts: int, rounds: int) -> None:
    """Print what the engine and the shards of a batch do in a second."""
    found = rates(layer, texts, rounds)
    medians = {name: statistics.median(getattr(each, name) for each in found) for name in vars(found[0])}
    ratio = statistics.median(each.batch / each.engine for each in found)
    print(f"{layer}, {texts:,} lines, {rounds} rounds by turns, medians:")
    for name, about in (
        ("engine", "engine alone"),
        ("tokenized", "with its tokenizer"),
        ("batch", "shards of a batch"),
    ):
        print(f"  {about:20} {medians[name]:10,.0f} tokens/s")
    print(f"  {'batch / engine':20} {ratio:10.1%}   (target 95 %)", flush=True)


def measure(lines: int, embedded: int) -> None:
    """Print what the passes take, by the number of lines."""
    print(f"{'lines':>12} " + " ".join(f"{name:>22}" for name in _STUBS))
    number = 1000
    while number <= lines:
        told = []
        for name in _STUBS:
            said(f"  {name} at {number:,} lines ...")
            mib, seconds = peak(name, number)
            told.append(f"{mib:10.0f} MiB {seconds:6.1f} s")
        print(f"{number:12,} " + " ".join(f"{each:>22}" for each in told), flush=True)
        number *= 10
    for number in (embedded // 10, embedded):
        said(f"  the real engine at {number:,} lines ...")
        mib, seconds = peak("engine", number)
        print(f"real engine, {number:,} lines: {mib:,.0f} MiB at most in {seconds:.1f} s", flush=True)


def only(work: str, lines: int) -> None:
    if work == "engine":
        before, seconds, mib = real(lines)
        said(f"  {before:,.0f} MiB before")
    else:
        seconds, mib = _STUBS[work](lines), passes.peak_mib()
    print(mib, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-batch", description=__doc__)
    parser.add_argument("--layer", default=MODEL, help="in model_layer/out, held against its batches")
    parser.add_argument("--texts", type=int, default=6000, help="lines of the batch that is held against the engine")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lines", type=int, default=1_000_000, help="most lines that are planned and finished")
    parser.add_argument("--embedded", type=int, default=10_000, help="lines whose memory is that of the real engine")
    parser.add_argument("--only", choices=(*_STUBS, "engine"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        only(asked.only, asked.lines)
    else:
        print(f"{machine.processor()}; {machine.busy()}")
        compare(asked.layer, asked.texts, asked.rounds)
        if asked.layer == MODEL:  # what the passes take is no matter of the model
            measure(asked.lines, asked.embedded)
    return 0


if __name__ == "__main__":
    sys.exit(main())
