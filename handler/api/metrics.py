"""`GET /metrics` of a plain HTTP host, if METRICS=on: what this process has done, in Prometheus' text format 0.0.4."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import accumulate
from time import perf_counter

from fastapi import APIRouter, Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handler.api import coding
from handler.api.paths import Paths
from handler.service import Service

router = APIRouter()

_KINDS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BYTES = tuple(float(1 << power) for power in range(8, 27, 2))  # 256 B to 64 MiB

Labels = tuple[tuple[str, str], ...]


class Histogram:
    """Observations counted by the least bound that holds them; the last count is of those above every bound."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self._counts[sum(value > bound for bound in self._bounds)] += 1
        self._sum += value

    def lines(self, name: str, labels: Labels) -> Iterator[str]:
        bounds = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        for bound, count in zip(bounds, accumulate(self._counts), strict=True):
            yield _line(f"{name}_bucket", (*labels, ("le", bound)), count)
        yield _line(f"{name}_sum", labels, self._sum)
        yield _line(f"{name}_count", labels, sum(self._counts))


class Metrics:
    """The process's counts. Fed from the event loop alone, so nothing is locked."""

    def __init__(self) -> None:
        self._requests: dict[Labels, int] = defaultdict(int)
        self._seconds: dict[Labels, Histogram] = defaultdict(lambda: Histogram(_SECONDS))
        self._received: dict[Labels, Histogram] = defaultdict(lambda: Histogram(_BYTES))
        self._sent: dict[Labels, Histogram] = defaultdict(lambda: Histogram(_BYTES))
        self._tokens = 0

    def add(
        self, method: str, route: str | None, status: int, *, seconds: float, received: int, sent: int, tokens: int
    ) -> None:
        """One request. What a caller can make up (a method, a path that is no route) is counted as `other`."""
        where = (("route", route or "other"),)
        self._requests[*where, ("method", method if method in _KINDS else "other"), ("status", str(status))] += 1
        self._seconds[where].add(seconds)
        self._received[where].add(received)
        self._sent[where].add(sent)
        self._tokens += tokens

    def text(self, *, ready: bool) -> str:
        return "\n".join(self._lines(ready)) + "\n"

    def _lines(self, ready: bool) -> Iterator[str]:
        yield from _head("emblet_ready", "gauge", "1 once a token has gone through the model.")
        yield _line("emblet_ready", (), int(ready))
        yield from _head("emblet_tokens_total", "counter", "Tokens embedded and billed.")
        yield _line("emblet_tokens_total", (), self._tokens)
        yield from _head("emblet_requests_total", "counter", "Requests answered; status 0: the caller had gone.")
        for labels, count in self._requests.items():
            yield _line("emblet_requests_total", labels, count)
        yield from _family("emblet_request_seconds", "From a request's head to its answer's end.", self._seconds)
        yield from _family("emblet_request_body_bytes", "Body of a request, as far as it was read.", self._received)
        yield from _family("emblet_response_body_bytes", "Body of an answer, as sent.", self._sent)


class Metered:
    """Middleware around the frame: all that it answers is counted."""

    def __init__(self, app: ASGIApp, paths: Paths, metrics: Metrics) -> None:
        self.app, self.paths, self.metrics = app, paths, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, received, sent = perf_counter(), 0, 0, 0

        async def receiving() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            nonlocal status, sent
            status = message.get("status", status)
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receiving, sending)
        finally:
            self.metrics.add(
                scope["method"],
                self.paths.route(self.paths.canonical(scope["path"])),
                status,
                seconds=perf_counter() - start,
                received=received,
                sent=sent if scope["method"] != "HEAD" else 0,
                tokens=scope.get("state", {}).get("tokens", 0),
            )


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """This process's own numbers; public, so a host that faces the world keeps them off."""
    coding.refuse(request.headers)
    service: Service = request.app.state.service
    found: Metrics = request.app.state.metrics
    return Response(found.text(ready=service.ready), media_type="text/plain; version=0.0.4")


def _family(name: str, about: str, histograms: Mapping[Labels, Histogram]) -> Iterator[str]:
    yield from _head(name, "histogram", about)
    for labels, histogram in histograms.items():
        yield from histogram.lines(name, labels)


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"


def _line(name: str, labels: Labels, value: float) -> str:
    """Our labels hold neither quotes nor backslashes nor line breaks: they are routes, methods and numbers."""
    inside = ",".join(f'{label}="{text}"' for label, text in labels)
    return f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"
