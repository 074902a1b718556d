"""Lambda's handler: one event in, one answer out. Importing this module is the function's init, which loads all."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from handler import logs, settings
from handler.billing import keys
from handler.contract import payload
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


def _source(event: Event) -> str | None:
    """What sent an event of records: `aws:sqs`, `aws:s3`, …; None for what AWS does not send."""
    records = event.get("Records")
    first = records[0] if isinstance(records, list) and records else None
    source = first.get("eventSource") if isinstance(first, dict) else None
    return source if isinstance(source, str) and source.startswith("aws:") else None


def _is_http(event: Event) -> bool:
    context = event.get("requestContext")
    return isinstance(context, dict) and "http" in context


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

        # lifespan "auto" would start and stop the app on every call
        http = Mangum(create_app(service, payload.LAMBDA_BYTES), lifespan="off")
        loading.result()
    _rehearse(http)
    log.info("init done in %.0f ms", (time.perf_counter() - start) * 1e3)
    return (
        Kind("function URL", _is_http, http),
        Kind("SQS", lambda event: _source(event) == "aws:sqs"),
        Kind("S3", lambda event: _source(event) == "aws:s3"),
        Kind("DynamoDB stream", lambda event: _source(event) == "aws:dynamodb"),
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


def handler(event: Any, context: Any) -> Any:
    """The answer of the door that takes this kind of event. Raises UnsupportedEventError for all others."""
    if not isinstance(event, dict):
        raise UnsupportedEventError(f"This function takes events that are objects, not {type(event).__name__}.")
    for kind in KINDS:
        if kind.matches(event):
            if kind.door is None:
                raise UnsupportedEventError(f"This function does not take {kind.name} events yet.")
            return kind.door(event, context)
    known = _source(event) or ", ".join(sorted(event)) or "nothing"  # names only: values are the sender's
    raise UnsupportedEventError(f"This function does not know this kind of event (it has: {known}).")
