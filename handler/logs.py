"""How the process logs: our own loggers at LOG_LEVEL, everyone else's warnings. Never a text or a key."""

import json
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from handler.settings import Settings

NAMESPACE = "emblet"  # of our own metrics

_call: ContextVar[Mapping[str, str] | None] = ContextVar("call", default=None)


def configure(config: Settings) -> None:
    """Where a runtime has set up logging (awslambdaric), its handlers and format stay."""
    if not logging.getLogger().handlers:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.WARNING)
    # Ours alone: at DEBUG, botocore would log the requests it signs.
    logging.getLogger("handler").setLevel(config.log_level)


def as_lambda_wants() -> None:
    """Where no runtime sets up logging: a line of JSON each on stdout, by the names that Lambda filters and shows."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Json())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


@contextmanager
def of_call(ids: Mapping[str, str]) -> Iterator[None]:
    """What is logged within, on this thread and for its call, carries these ids."""
    token = _call.set(ids)
    try:
        yield
    finally:
        _call.reset(token)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "timestamp": _timestamp(datetime.fromtimestamp(record.created, UTC)),
            "level": {"WARNING": "WARN", "CRITICAL": "FATAL"}.get(record.levelname, record.levelname),
            "logger": record.name,
            "message": record.getMessage(),
            **(_call.get() or {}),
        }
        if record.exc_info and record.exc_info[0]:
            line["errorType"] = record.exc_info[0].__name__
            line["stackTrace"] = traceback.format_tb(record.exc_info[2])
        return json.dumps(line, ensure_ascii=False)


def _timestamp(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"


def metric(name: str, value: int, function: str, **facts: object) -> str:
    """A line that CloudWatch makes a metric of (its embedded metric format), for stdout as it is: a logger of Lambda's
    would wrap it, and then it is none. Lambda's own level filter goes by `level`, which counts beside a `timestamp`."""
    now = datetime.now(UTC)
    shape = {"Namespace": NAMESPACE, "Dimensions": [["FunctionName"]], "Metrics": [{"Name": name, "Unit": "Count"}]}
    line = {
        "timestamp": _timestamp(now),
        "level": "ERROR",
        "_aws": {"Timestamp": int(now.timestamp() * 1000), "CloudWatchMetrics": [shape]},
        "FunctionName": function,
        name: value,
        **facts,
    }
    return json.dumps(line, separators=(",", ":"))
