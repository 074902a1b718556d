"""The ledger queue, where a record waits that DynamoDB has not taken; and the log, where it stays if that fails too."""

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Protocol

from handler import store
from handler.billing import budget, records
from handler.billing.budget import Budget
from handler.billing.records import Record

log = logging.getLogger(__name__)

METRIC, NAMESPACE = "LostRecords", "emblet"
_FIELD = "lost_record"


class Queue(Protocol):
    """What is used of an SQS client."""

    def send_message(self, *, QueueUrl: str, MessageBody: str) -> Any: ...  # noqa: N803


class Outbox:
    """The queue at `url`, and its function's log. `function`: its name, by which the metric is told from others'."""

    def __init__(self, client: Callable[[], Queue], url: str, function: str) -> None:
        self._client, self._url, self._function = client, url, function

    def keep(self, record: Record) -> None:
        """Keep a record until it is written. Raises nothing: its answer leaves whatever happens here."""
        try:
            text, queue = records.dumps(record), self._client()
            allowance = Budget(budget.SECONDS, store.HURRIED_S)
            allowance.call(lambda: queue.send_message(QueueUrl=self._url, MessageBody=text), "the ledger queue")
        except Exception as error:
            log.error("Ledger queue out of reach, the record is in the next line: %s", error)
            sys.stdout.write(_line(record, self._function) + "\n")
            sys.stdout.flush()
        else:
            log.warning("Usage table out of reach: record of work %s is in the ledger queue", record.work.id)


def _line(record: Record, function: str) -> str:
    """One line that CloudWatch makes a metric of (its embedded metric format) and that holds all of the record.

    Lambda lets a line of JSON through its level filter by its `level`, which counts only beside a `timestamp`.
    """
    now = datetime.now(UTC)
    metric = {"Namespace": NAMESPACE, "Dimensions": [["FunctionName"]], "Metrics": [{"Name": METRIC, "Unit": "Count"}]}
    line = {
        "timestamp": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": "ERROR",
        "_aws": {"Timestamp": int(now.timestamp() * 1000), "CloudWatchMetrics": [metric]},
        "FunctionName": function,
        METRIC: 1,
        _FIELD: json.loads(records.dumps(record)),
    }
    return json.dumps(line, separators=(",", ":"))


def read(lines: Iterable[str]) -> Iterator[Record]:
    """The records in a log: in lines as they were written, with something before them, or in the `message` of a line of
    Lambda's own JSON format. Raises ValueError for one that is cut or broken; other lines are passed over."""
    for number, line in enumerate(lines, 1):
        if _FIELD not in line:
            continue
        try:
            yield records.from_fields(_lost(line))
        except ValueError as error:
            raise ValueError(f"line {number} holds a record that cannot be read: {error}") from error


def _lost(line: str) -> Any:
    start = line.find("{")
    if start < 0:
        raise ValueError("there is no JSON in it")
    found, _ = json.JSONDecoder().raw_decode(line, start)
    return found[_FIELD] if _FIELD in found else _lost(str(found.get("message", "")))
