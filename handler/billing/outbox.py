"""The ledger queue, where a record waits that DynamoDB has not taken; and the log, where it stays if that fails too."""

import json
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeGuard

from handler import logs, store
from handler.billing import budget, records
from handler.billing.budget import Budget
from handler.billing.records import Record

log = logging.getLogger(__name__)

METRIC = "LostRecords"
_FIELD = "lost_record"
_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT[0-9:.,]{5,18}(Z|[+-]\d\d:?\d\d)?[ \t]+")
_BEGIN = '{"timestamp":"'  # of our own lines; those of Lambda, when they are whole, are passed over
_NAMED = re.compile(rf'(\b{_FIELD}|\b{METRIC})\\*":')  # quoted, as no caller can have it in the log


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
    """All of the record, in a line that CloudWatch makes a metric of."""
    return logs.metric(METRIC, 1, function, **{_FIELD: json.loads(records.dumps(record))})


def read(lines: Iterable[str]) -> Iterator[tuple[int, Record | None]]:
    """The records in a log, each with its line's number; None where a line is cut or broken that may have held one.

    A record counts only in a line that is one of ours from its first character to its last, with at most a time before
    it, as drivers of container logs write: what a caller has put into a log is no record.
    """
    for number, line in enumerate(lines, 1):
        text = _STAMP.sub("", line.rstrip())
        try:
            found = json.loads(text) if text.startswith("{") else None
            if _is_ours(found):
                yield number, records.from_fields(found[_FIELD])
            elif _NAMED.search(text):
                yield number, None
        except (RecursionError, ValueError):
            if text.startswith(_BEGIN) or _NAMED.search(text):
                yield number, None


def _is_ours(found: Any) -> TypeGuard[dict[str, Any]]:
    """Whether it is what `logs.metric` makes of a record: a program's own words are within the `message` of Lambda's
    JSON lines, and their `_aws` is not at the top."""
    match found:
        case {"_aws": {"CloudWatchMetrics": [{"Namespace": logs.NAMESPACE}]}}:
            return METRIC in found and _FIELD in found
    return False
