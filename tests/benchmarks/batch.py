"""`make bench-batch`: the rate of a batch's shards against the engine's own on the same inputs, and the memory of the
passes that have no engine, by the number of lines."""

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from handler.batches import join, plan
from handler.batches.bucket import Bucket
from handler.batches.join import Piece
from handler.batches.plan import Bounds
from handler.contract.models import Models
from handler.engine import manifest
from handler.models import of_layer
from handler.settings import Settings
from tests.conftest import HOUSE

MODEL = "all-minilm-l6-v2"
_WORDS = (HOUSE / "README.md").read_text(encoding="utf-8").split()
_RESULT = 100  # bytes of a stub's line
_PER_SHARD = 3000


def text(number: int) -> str:
    """Of 10 to 60 words, which are within the model's context."""
    draw = random.Random(number)
    return " ".join(draw.choices(_WORDS, k=draw.randrange(10, 61)))


def line(number: int, asked: str) -> bytes:
    body = {"model": MODEL, "input": asked, "encoding_format": "base64"}
    return json.dumps({"custom_id": f"c-{number}", "method": "POST", "url": "/v1/embeddings", "body": body}).encode()


def chunks(lines: int) -> Iterator[bytes]:
    """A file of short lines, never whole in memory."""
    for start in range(0, lines, 5000):
        yield b"".join(line(number, "a text") + b"\n" for number in range(start, min(start + 5000, lines)))


def planned(lines: int) -> None:
    models = Models(of_layer(manifest.load(HOUSE / "model_layer/out" / MODEL), Settings()))
    found = plan.read(chunks(lines), models, Bounds())
    assert (found.total, found.faults) == (lines, []), found.faults[:3]


class Stub:
    """S3 as the joining sees it, which keeps nothing."""

    def __init__(self) -> None:
        self.parts, self.smallest, self.bytes = 0, 1 << 40, 0
        self._last = 0

    def create_multipart_upload(self, **_: Any) -> dict[str, str]:
        return {"UploadId": "u"}

    def upload_part(self, *, Body: bytes, **_: Any) -> dict[str, str]:  # noqa: N803
        self.smallest = min(self.smallest, self._last or 1 << 40)
        self.parts, self._last, self.bytes = self.parts + 1, len(Body), self.bytes + len(Body)
        return {"ETag": "e"}

    def complete_multipart_upload(self, **_: Any) -> dict[str, str]:
        return {}

    def head_object(self, **_: Any) -> dict[str, Any]:
        from botocore.exceptions import ClientError

        raise ClientError({"Error": {"Code": "404", "Message": ""}}, "HeadObject")

    def get_object(self, *, Range: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        first, last = Range.removeprefix("bytes=").split("-")
        return {"Body": Body(b"x" * (int(last) - int(first) + 1)), "ETag": "e"}


class Body(io.BytesIO):
    def iter_chunks(self, size: int) -> Iterator[bytes]:
        while chunk := self.read(size):
            yield chunk


def joined(lines: int) -> None:
    stub = Stub()
    bucket = Bucket(lambda: stub, "stub")  # type: ignore[arg-type, return-value]
    pieces = (Piece(f"{n}", 1, 1 + _RESULT * min(_PER_SHARD, lines - n)) for n in range(0, lines, _PER_SHARD))
    assert join.join(bucket, pieces, "out", "groups/", lambda: False) == lines * _RESULT
    assert stub.bytes == lines * _RESULT
    assert stub.smallest >= join.PART
    assert stub.parts <= 10_000


def peak(work: str, lines: int) -> tuple[float, float]:
    """MiB at most, and seconds, of a process that does this much."""
    call = [sys.executable, "-m", "tests.benchmarks.batch", "--only", work, "--lines", str(lines)]
    done = subprocess.run(call, cwd=HOUSE, capture_output=True, text=True, check=True)
    mib, seconds = done.stdout.split()
    return float(mib), float(seconds)


def only(work: str, lines: int) -> None:
    start = time.perf_counter()
    {"plan": planned, "join": joined}[work](lines)
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()  # getrusage's peak may be that of who has started us
    print(int(status.partition("VmHWM:")[2].split()[0]) / 1024, seconds)


def rates(lines: int) -> tuple[float, float]:
    """Tokens a second of the engine alone, and of a batch of the same texts, all of its passes' stores on MiniStack."""
    import boto3

    from handler.billing.keytext import digest
    from handler.service import Service
    from tests.batches.works import Works
    from tests.stack.ministack import MiniStack

    texts = [text(number) for number in range(lines)]
    program = HOUSE / ".venv-ministack/bin/ministack"
    with tempfile.TemporaryDirectory() as folder, MiniStack(program, Path(folder)) as stack:
        os.environ.update(stack.env)
        tables = stack.create_tables(HOUSE / "template.yaml", "bench")
        boto3.client("s3").create_bucket(Bucket="bench")
        config = Settings(
            model_dir=str(HOUSE / "model_layer/out" / MODEL),
            keys_table=tables.keys,
            usage_table=tables.usage,
            limits_table=tables.limits,
            prices_table=tables.prices,
            entries_table=tables.entries,
            jobs_table=tables.jobs,
            results_bucket="bench",
        )
        service = Service.open(config)
        service.load()
        engine = service.bulk._engine
        ids = engine.tokens.encode(texts)
        count = sum(map(len, ids)) - 2 * len(ids)
        works = Works(config, service, "acct_bench", digest(tables.create_key("acct_bench", "inference")))
        alone, batch = [], []
        for _ in range(3):  # by turns: the machine is not always alike
            start = time.perf_counter()
            engine.encode(ids)
            alone.append(time.perf_counter() - start)
            made = works.submit(line(n, each) + b"\n" for n, each in enumerate(texts))
            works.plans.deliver(works.planner)
            start = time.perf_counter()
            while works.shards.deliver(works.executor):
                pass
            batch.append(time.perf_counter() - start)
            assert works.end(made).batch.completed == lines
        return count / min(alone), count / min(batch)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-batch", description=__doc__)
    parser.add_argument("--texts", type=int, default=2000, help="lines of the batch that is embedded")
    parser.add_argument("--lines", type=int, default=1_000_000, help="most lines that are planned and joined")
    parser.add_argument("--only", choices=("plan", "join"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        only(asked.only, asked.lines)
        return 0
    alone, batch = rates(asked.texts)
    print(f"engine alone {alone:,.0f} tokens/s, a batch {batch:,.0f} tokens/s: {batch / alone:.1%}")
    lines = 1000
    print(f"{'lines':>12} {'planner':>20} {'joining':>20}")
    while lines <= asked.lines:
        (mib, seconds), (join_mib, join_seconds) = peak("plan", lines), peak("join", lines)
        print(f"{lines:12,} {mib:8.0f} MiB {seconds:6.1f} s {join_mib:8.0f} MiB {join_seconds:6.1f} s", flush=True)
        lines *= 10
    return 0


if __name__ == "__main__":
    sys.exit(main())
