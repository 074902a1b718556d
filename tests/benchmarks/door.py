"""`make bench-door`: what a warm request costs beside the engine and its record, part by part, from a function URL's
event to the JSON of its result, in one process. DynamoDB is MiniStack; the two loads take turns."""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.ledger import stack
from tests.conftest import HOUSE, serving
from tests.stack.payload import to_event

LAYER = "bge-m3-seeded-2"  # vectors as wide as bge-m3's
LOADS = {"one vector": 1, "480 vectors": 480}  # inputs of a request, base64
WORK = ("encode", "record")  # the engine's and the ledger's, which have targets of their own
_WARM_UPS = 3


class _Context:
    """What of Lambda's own context the door reads."""

    @staticmethod
    def get_remaining_time_in_millis() -> int:
        return 60_000


@dataclass(frozen=True)
class Request:
    """Milliseconds of each part of a request, in their order: `event` is what Mangum, routing in front of the app's
    first middleware, and the way back take; `result` the runtime's own JSON of the answer."""

    parts: dict[str, float]

    @property
    def beside(self) -> float:
        """What neither the engine nor the record takes."""
        return sum(ms for part, ms in self.parts.items() if part not in WORK)


def measure(env: Mapping[str, str], key: str, passes: int) -> Iterator[tuple[str, Request]]:
    """A load's name and one warm request, again and again, in turn."""
    from mangum import Mangum

    from handler import settings
    from handler.api.app import create_app
    from handler.contract import payload
    from handler.service import Service

    service = Service.open(settings.parse(env))
    service.load()
    http = Mangum(create_app(service, payload.LAMBDA_BYTES), lifespan="off")
    for number in range(_WARM_UPS + passes):
        for name, inputs in LOADS.items():
            request = _one(http, key, service.models.all[0].id, inputs)
            if number >= _WARM_UPS:
                yield name, request


def _one(http: Any, key: str, model: str, inputs: int) -> Request:
    texts = [f"text {number}" for number in range(inputs)]
    body = json.dumps({"model": model, "input": texts, "encoding_format": "base64"}).encode()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json", "x-emblet-timing": "true"}
    event = to_event("POST", "/v1/embeddings", headers.items(), body, "127.0.0.1")

    start = time.perf_counter()
    answer = http(event, _Context())
    answered = time.perf_counter()
    json.dumps(answer)
    result = (time.perf_counter() - answered) * 1e3

    assert answer["statusCode"] == 200, answer["body"]
    named = (part.split(";dur=") for part in answer["headers"]["server-timing"].split(", "))
    parts = {part: float(ms) for part, ms in named}
    around = (answered - start) * 1e3 - sum(parts.values())
    return Request({"event": around} | parts | {"result": result})


def table(seen: Sequence[tuple[str, Request]]) -> Iterator[str]:
    """Medians: a column a load."""
    by_load = {name: [request for load, request in seen if load == name] for name in LOADS}
    yield "| ms, median | " + " | ".join(by_load) + " |"
    yield "|---|" + "---:|" * len(by_load)
    for part in seen[0][1].parts:
        yield _row(part, [statistics.median(each.parts[part] for each in requests) for requests in by_load.values()])
    yield _row(
        f"**beside {' and '.join(WORK)}**",
        [statistics.median(each.beside for each in requests) for requests in by_load.values()],
    )


def _row(title: str, ms: Sequence[float]) -> str:
    return f"| {title} | " + " | ".join(f"{each:.2f}" for each in ms) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-door ARGS=...", description=__doc__)
    parser.add_argument("--passes", type=int, default=200, help="requests of each load; default 200")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, stack(Path(name)) as (aws, tables):
        env = serving(aws, tables, HOUSE / "model_layer/out" / LAYER)
        print("\n".join(table(list(measure(env, tables.create_key("acct_door", "inference"), asked.passes)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
