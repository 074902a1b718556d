"""What travels between the passes: pointers and numbers, through two queues of SQS."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from handler import store
from handler.contract.batches import Batch

log = logging.getLogger(__name__)

PLAN, CLOSE, FINISH = "plan", "close", "finish"
_SENT = 10  # messages of a call (SQS developer guide)


@dataclass(frozen=True)
class Shard:
    """A shard of a batch: its number, and the bytes of the file and the lines that it has."""

    account: str
    batch: str
    number: int
    start: int
    end: int
    lines: int


@dataclass(frozen=True)
class Step:
    """What is to be done with a batch: PLAN, CLOSE or FINISH."""

    account: str
    batch: str
    do: str


class Shards:
    """The queue of shards; of a batch that is planned now `at_once` are to be out at most."""

    def __init__(self, client: Callable[[], Any], url: str, at_once: int) -> None:
        self._client, self._url, self.at_once = client, url, at_once

    def send(self, shards: Sequence[Shard]) -> None:
        """Raises StoreUnavailableError, and then some may have been sent."""
        for begin in range(0, len(shards), _SENT):
            entries = [
                # A group is an account: of fair queues each group has its share, however much another has waiting.
                {"Id": str(place), "MessageBody": json.dumps(asdict(each)), "MessageGroupId": each.account}
                for place, each in enumerate(shards[begin : begin + _SENT])
            ]
            with store.answering("the queue of shards"):
                answer = self._client().send_message_batch(QueueUrl=self._url, Entries=entries)
            if answer.get("Failed"):
                raise store.StoreUnavailableError("the queue of shards has not taken all")


class Steps:
    """The queue of what plans, closes and finishes."""

    def __init__(self, client: Callable[[], Any], url: str) -> None:
        self._client, self._url = client, url

    def send(self, batch: Batch, do: str) -> None:
        """Raises StoreUnavailableError."""
        body = json.dumps(asdict(Step(batch.account, batch.id, do)))
        with store.answering("the queue of plans"):
            self._client().send_message(QueueUrl=self._url, MessageBody=body, MessageGroupId=batch.account)

    def try_send(self, batch: Batch, do: str) -> None:
        """As `send`; what could not be sent is sent by the hourly event, which knows of each batch that is open."""
        try:
            self.send(batch, do)
        except store.StoreUnavailableError as error:
            log.error("batch %s waits for the hourly event to %s it: %s", batch.id, do, error)


def shard(text: str) -> Shard:
    """Raises ValueError for what is none."""
    return _read(Shard, text)


def step(text: str) -> Step:
    """Raises ValueError for what is none."""
    return _read(Step, text)


T = TypeVar("T")


def _read(kind: type[T], text: str) -> T:
    try:
        return kind(**json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"this is no {kind.__name__.lower()} of a batch") from error
