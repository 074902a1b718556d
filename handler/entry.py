"""Lambda's handler: one event in, one answer out. Importing this module is the function's init, which loads all that
its role needs (FUNCTION_ROLE), and nothing that only another's does."""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from handler import logs, settings
from handler.settings import Settings

log = logging.getLogger(__name__)

Event = dict[str, Any]
Door = Callable[[Event, Any], Any]


class UnsupportedEventError(Exception):
    """An event of a kind that this function does not take; the message names the kind."""


def _source(event: Event) -> str | None:
    """What sent an event of records: `aws:sqs`, `aws:s3`, …; None for what AWS does not send."""
    records = event.get("Records")
    first = records[0] if isinstance(records, list) and records else None
    source = first.get("eventSource") if isinstance(first, dict) else None
    return source if isinstance(source, str) and source.startswith("aws:") else None


def _is_http(event: Event) -> bool:
    context = event.get("requestContext")
    return isinstance(context, dict) and "http" in context


# How each kind of event is known, whichever function it comes to.
_KINDS: Mapping[str, Callable[[Event], bool]] = {
    "function URL": _is_http,
    "SQS": lambda event: _source(event) == "aws:sqs",
    "S3": lambda event: _source(event) == "aws:s3",
    "DynamoDB stream": lambda event: _source(event) == "aws:dynamodb",
    "schedule": lambda event: event.get("detail-type") == "Scheduled Event",
}


def _embed(config: Settings) -> Mapping[str, Door]:
    """Everything that a first request needs: the model loads beside the imports of the HTTP door."""
    from handler.contract import payload
    from handler.service import Service

    if 0 < config.aws_lambda_max_concurrency <= config.max_queue_requests:
        log.warning("MAX_QUEUE_REQUESTS is not below the calls at once: Lambda's own 429 comes before our 503")
    service = Service.open(config)
    with ThreadPoolExecutor(1, "load") as loader:
        loading = loader.submit(service.load)
        from mangum import Mangum

        from handler.api.app import create_app

        # lifespan "auto" would start and stop the app on every call
        http = Mangum(create_app(service, payload.LAMBDA_BYTES), lifespan="off")
        loading.result()
    _rehearse(http)
    return {"function URL": http}


def _rehearse(http: Door) -> None:
    """One request of our own through the whole door, so that the first of a caller's finds every path walked. Its key
    is well formed and in no table: it reads the table, is refused, and bills nobody."""
    from handler.billing import keys

    event = {
        "version": "2.0",
        "rawQueryString": "",
        "headers": {"authorization": f"Bearer {keys.make()}"},
        "requestContext": {"http": {"method": "POST", "path": "/v1/embeddings", "sourceIp": "127.0.0.1"}},
    }
    log.info("rehearsing a request with a key that is in no table: a 401 is right")
    http(event, None)


def _work(config: Settings) -> Mapping[str, Door]:
    """What executes shards: the model, and no HTTP door."""
    from handler.events.shards import Pointers
    from handler.service import Service

    service = Service.open(config)
    service.load()
    from handler.events import passes
    from handler.events.messages import Messages

    queues = {config.shards_queue: Pointers(passes.shards(config, service))}
    return {"SQS": _by_queue(queues, Messages(config, service))}


def _ledger(config: Settings) -> Mapping[str, Door]:
    """What keeps the books. It embeds nothing: neither the model nor the HTTP door is imported."""
    from handler import store
    from handler.billing.corrections import Corrections
    from handler.billing.ledger import Ledger
    from handler.billing.limits import Counters
    from handler.billing.recount import Recount
    from handler.billing.renewal import Renewal
    from handler.billing.waiting import Waiting
    from handler.events.drain import Drain
    from handler.events.schedule import Job, Schedule
    from handler.events.stream import Stream

    recount = Recount.open(config)
    store.dynamodb()  # while init has the CPU for it
    function, limits = config.aws_lambda_function_name, config.limits_table
    stream = Stream(recount, ThreadPoolExecutor(4, "buckets"), function)
    # Without a queue behind it: what cannot be written stays in the queue that it came from.
    ledger = Ledger(store.ledger, config.usage_table, config.entries_table, window_s=config.retry_window)
    waiting = Waiting(store.queues, config.ledger_queue)
    jobs: list[Job] = [Corrections(store.dynamodb, limits, recount, function, waiting=waiting)] if limits else []
    drain: Door = Drain(ledger, Counters(store.dynamodb, limits), recount.rollups.register)
    if config.jobs_table:
        from handler.events import passes
        from handler.events.shards import Pointers

        jobs.append(passes.overdue(config))
        queues = {
            config.plans_queue: Pointers(passes.plans(config, ledger)),
            config.objects_queue: Pointers(passes.objects(config)),
        }
        drain = _by_queue(queues, drain)
    return {"DynamoDB stream": stream, "SQS": drain, "schedule": Schedule(Renewal(recount), jobs)}


def _by_queue(doors: Mapping[str, Door], otherwise: Door) -> Door:
    """The door of the queue that an event comes from, by the queue's URL."""
    names = {url.rpartition("/")[2]: door for url, door in doors.items()}

    def door(event: Event, context: Any) -> Any:
        name = event["Records"][0]["eventSourceARN"].rpartition(":")[2]
        return names.get(name, otherwise)(event, context)

    return door


_ROLES: Mapping[str, Callable[[Settings], Mapping[str, Door]]] = {"embed": _embed, "work": _work, "ledger": _ledger}


def _init() -> Mapping[str, Door]:
    start = time.perf_counter()
    config = settings.read()
    logs.configure(config)
    doors = _ROLES[config.function_role](config)
    log.info("init done in %.0f ms", (time.perf_counter() - start) * 1e3)
    return doors


DOORS = _init()


def handler(event: Any, context: Any) -> Any:
    """The answer of the door that takes this kind of event. Raises UnsupportedEventError for all others."""
    if not isinstance(event, dict):
        raise UnsupportedEventError(f"This function takes events that are objects, not {type(event).__name__}.")
    for kind, matches in _KINDS.items():
        if matches(event):
            if kind not in DOORS:
                raise UnsupportedEventError(f"This function does not take {kind} events.")
            return DOORS[kind](event, context)
    known = _source(event) or ", ".join(sorted(event)) or "nothing"  # names only: values are the sender's
    raise UnsupportedEventError(f"This function does not know this kind of event (it has: {known}).")
