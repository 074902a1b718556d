"""Lambda's handler: one event in, one answer out. Importing this module is the function's init, which loads all."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from handler import logs, settings
from handler.billing import keys
from handler.service import Service

log = logging.getLogger(__name__)

Event = dict[str, Any]


class UnsupportedEventError(Exception):
    """An event of a kind that this function does not take; the message names the kind."""


@dataclass(frozen=True)
class Kind:
    """A kind of event: how it is known, and the door it goes to, if this function has one."""

    name: str
    matches: Callable[[Event], bool]
    door: Callable[[Event, Any], Any] | None = None


def _records_of(source: str) -> Callable[[Event], bool]:
    def matches(event: Event) -> bool:
        records = event.get("Records")
        first = records[0] if isinstance(records, list) and records else None
        return isinstance(first, dict) and first.get("eventSource") == source

    return matches


def _init() -> tuple[Kind, ...]:
    """Everything that a first request needs: the model loads beside the imports of the HTTP door."""
    start = time.perf_counter()
    config = settings.read()
    logs.configure(config)
    service = Service.open(config)
    with ThreadPoolExecutor(1, "load") as loader:
        loading = loader.submit(service.load)
        from mangum import Mangum

        from handler.api.app import create_app

        http = Mangum(create_app(service), lifespan="off")  # "auto" would start and stop the app on every call
        loading.result()
    _rehearse(http)
    log.info("init done in %.0f ms", (time.perf_counter() - start) * 1e3)
    return (
        Kind("function URL", lambda event: "http" in (event.get("requestContext") or {}), http),
        Kind("SQS", _records_of("aws:sqs")),
        Kind("S3", _records_of("aws:s3")),
        Kind("DynamoDB stream", _records_of("aws:dynamodb")),
        Kind("schedule", lambda event: event.get("detail-type") == "Scheduled Event"),
    )


def _rehearse(http: Callable[[Event, Any], Any]) -> None:
    """One request of our own through the whole door, so that the first of a caller's finds every path walked. Its key
    is well formed and in no table: it reads the table, is refused, and bills nobody."""
    event = {
        "version": "2.0",
        "rawQueryString": "",
        "headers": {"authorization": f"Bearer {keys.make()}"},
        "requestContext": {"http": {"method": "POST", "path": "/v1/embeddings", "sourceIp": "127.0.0.1"}},
    }
    log.info("rehearsing a request with a key that is in no table: a 401 is right")
    http(event, None)


KINDS = _init()


def handler(event: Event, context: Any) -> Any:
    """The answer of the door that takes this kind of event. Raises UnsupportedEventError for all others."""
    for kind in KINDS:
        if kind.matches(event):
            if kind.door is None:
                raise UnsupportedEventError(f"This function does not take {kind.name} events yet.")
            return kind.door(event, context)
    shape = ", ".join(sorted(event)) if isinstance(event, dict) else type(event).__name__
    raise UnsupportedEventError(f"This function does not know this kind of event (it has: {shape or 'nothing'}).")
