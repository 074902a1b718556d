"""The door of messages that ask for embeddings: all of an event are given to the engine together, whoever sent them,
and each is answered, recorded and acknowledged for itself, in this order."""

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from itertools import chain, repeat
from math import inf
from typing import TYPE_CHECKING, Any

from handler import store
from handler.batches import careful, lines
from handler.batches.careful import ALONE, BusyError, Careful, Fate
from handler.batches.rows import Rows
from handler.billing import entries
from handler.billing.ledger import Outcome, Record, Work
from handler.billing.work import Identity
from handler.bulk import Answered
from handler.contract import errors, messages
from handler.contract.body import JSON
from handler.contract.errors import ApiError
from handler.contract.messages import Message, UnreadableError
from handler.events import deadline
from handler.payers import Payer
from handler.settings import Settings

if TYPE_CHECKING:
    from handler.service import Service

log = logging.getLogger(__name__)

_LARGEST = 1 << 20  # bytes of a message (SQS developer guide)
_REFUSED = ("InvalidParameterValue", "InvalidMessageContents")  # of a message's length, and of its characters
_ATTRIBUTE = 250  # characters of a reason
_OFTEN = 3  # times that a message has come, from which on it is tried alone
_WAITS_S = 10.0  # for others that are alone: as long as some messages take, and not as long as a shard


@dataclass(frozen=True)
class _Asked:
    """A message that has come so often, and the piece of work that it is; `payer`: who pays for it, or else `answer`:
    what it gets without the engine."""

    id: str
    received: int
    message: Message
    work: Work
    payer: Payer | None = None
    answer: Answered | None = None


class Messages:
    """A door for events of SQS whose mapping has ReportBatchItemFailures. Calling it answers which messages have to
    come again; the others have been answered and recorded, or lie with their reason among the dead letters."""

    def __init__(self, config: Settings, service: "Service") -> None:
        self._config, self._service, self._ledger = config, service, service.ledger
        self._rows, self._deaths = Rows(store.dynamodb, config.jobs_table), careful.deaths(config)

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, list[dict[str, str]]]:
        until = deadline.of(context)
        seconds = inf if until is None else until - time.monotonic()
        failed: list[str] = []
        asked: list[_Asked] = []
        for record in event["Records"]:
            with _for_itself(record["messageId"], failed):
                if (found := self._read(record)) is not None:
                    asked.append(found)
        alone = [each for each in asked if each.received >= _OFTEN and each.payer is not None]
        self._answer_alone(alone, until, seconds, failed)
        self._answer([each for each in asked if each not in alone], until, seconds, failed)
        return {"batchItemFailures": [{"itemIdentifier": each} for each in failed]}

    def _answer_alone(self, some: list[_Asked], until: float | None, seconds: float, failed: list[str]) -> None:
        """What has come in vain twice goes first, when there is all the time, and alone: it may be what keeps others
        from being answered, or ends the process, for which a shard that goes line by line would be blamed."""
        if not some:
            return
        is_alone = ALONE.acquire(timeout=min(_WAITS_S, max(0.0, seconds)))
        try:
            for each in some:
                with _for_itself(each.id, failed):
                    if not is_alone:
                        raise BusyError("a shard or another is alone in this process")
                    self._settle(each, self._alone(each, until, seconds))
        finally:
            if is_alone:
                ALONE.release()

    def _alone(self, asked: _Asked, until: float | None, seconds: float) -> Answered:
        """What a message gets that may be the last that this process does: a 500 where others have ended so, or where
        the engine fails at it again and at a good text not."""
        bulk, payer, found = self._service.bulk, asked.payer, None
        assert payer is not None  # noqa: S101  (else it would not be tried)
        payers = chain([payer], repeat(payer.without_limits))  # they are counted once, for however many attempts
        bulk.probe(until)  # by whose illness no message is to be blamed
        place = careful.of_message(asked.id, asked.work.time.timestamp())

        def embed() -> list[Answered]:
            [answer] = bulk.answer_each([(asked.message.body, next(payers))], until, seconds)
            if isinstance(answer, Exception):
                raise answer
            return [answer]

        def failed(name: str) -> None:
            log.error("message %s has failed alone: %s", asked.id, name)

        try:
            # Others that are tried alone have taken of the time.
            with Careful(self._rows, place, until, self._deaths, waited=True) as at:
                if at.begin(0) is not Fate.DEAD:
                    log.warning("message %s is tried alone, received %d times", asked.id, asked.received)
                    found = careful.attempt(embed, partial(bulk.probe, until), failed)
        except store.StoreUnavailableError as error:
            if found is None:
                raise
            log.error("message %s is embedded, which cannot be kept: %s", asked.id, error)
        if found is None:
            log.error("message %s is answered with an error for good", asked.id)
            return Answered.refused(errors.UNFORESEEN.error(id=f"req_{asked.work.id}"))
        return found[0]

    def _answer(self, group: list[_Asked], until: float | None, seconds: float, failed: list[str]) -> None:
        """Give them to the engine together."""
        pairs = ((each.message.body, each.payer) for each in group if each.payer is not None)
        answers = self._service.bulk.answer_each(pairs, until, seconds)
        for each in group:
            answer = each.answer or next(answers)
            with _for_itself(each.id, failed):
                self._settle(each, answer)

    def _read(self, record: dict[str, Any]) -> _Asked | None:
        """What a message asks for; None where it lies among the dead letters."""
        name = record["messageId"]
        try:
            message = messages.read(record["body"], self._config.results_bucket, self._config.result_destinations)
        except UnreadableError as error:
            log.error("message %s is dead: %s", name, error)
            self._bury(record["body"], str(error))
            return None
        came = datetime.fromtimestamp(int(record["attributes"]["SentTimestamp"]) / 1000, UTC)
        asked = _Asked(name, int(record["attributes"]["ApproximateReceiveCount"]), message, _work(message, name, came))
        if message.fault is not None:
            return replace(asked, answer=Answered.refused(message.fault))
        try:
            return replace(asked, payer=self._service.payers.of_message(message.account, message.key_id, came))
        except ApiError as error:
            return replace(asked, answer=Answered.refused(error))

    def _settle(self, asked: _Asked, answer: Answered | Exception) -> None:
        """Answer, then record."""
        if isinstance(answer, Exception):
            raise answer
        record = self._record(asked, answer)
        if record is None:
            if self._has_answer(asked):
                log.info("message %s has its answer, and comes too late for another", asked.id)
            else:
                self._send(asked, answer)
        elif record.work.identity is not None and self._ledger.is_reused(record):
            self._send(asked, Answered.refused(errors.KEY_REUSED.error(param="id")))
        else:
            self._send(asked, answer)
            if self._ledger.write(record) is Outcome.REUSED:  # since we looked: but its answer has left
                self._ledger.settle(record)

    def _has_answer(self, asked: _Asked) -> bool:
        """Whether what is refused now was answered and billed before, when its key, quota or time allowed it."""
        if asked.message.fault is not None:
            return False
        record = Record(asked.work, asked.message.account, "", "", 0, 1, Decimal(0))
        return self._ledger.is_billed(record)

    def _record(self, asked: _Asked, answer: Answered) -> Record | None:
        """What is to be billed; None for what is refused."""
        payer = asked.payer
        if payer is None or answer.status != 200:
            return None
        caller, model = payer.caller, self._service.models.all[0].id
        return Record(asked.work, asked.message.account, caller.key_id, model, answer.tokens, 1, payer.price)

    def _send(self, asked: _Asked, answer: Answered) -> None:
        """Put the line of an answer where it is to go: an object named after the work, or a message, which is a pointer
        to such an object where it would be too large."""
        message, place, work = asked.message, asked.message.place, asked.work
        line = lines.answered(message.id or asked.id, work.id, message.custom_id, answer.status, answer.body)
        if place.queue and len(line) <= _LARGEST and self._is_taken(place.queue, line.decode(), of=message.account):
            return
        bucket, prefix = place.bucket or self._config.results_bucket, place.prefix
        prefix = prefix if place.bucket else f"out/{message.account}/messages/"
        key = f"{prefix}{work.id}.json"
        with store.answering(bucket):
            store.s3().put_object(Bucket=bucket, Key=key, Body=line, ContentType=JSON)
        if place.queue:
            pointer = {"custom_id": message.custom_id, "result": {"s3": f"s3://{bucket}/{key}"}}
            self._queue(place.queue, json.dumps(pointer), of=message.account)

    def _queue(self, url: str, text: str, reason: str = "", of: str = "") -> None:
        """`of`: the account, whose messages a FIFO queue keeps in order; of equal ones within minutes it keeps one."""
        told: Any = {"reason": {"DataType": "String", "StringValue": reason[:_ATTRIBUTE]}} if reason else {}
        once = hashlib.sha256(text.encode()).hexdigest()
        order: Any = {"MessageGroupId": of, "MessageDeduplicationId": once} if url.endswith(".fifo") else {}
        with store.answering("the queue of dead letters" if reason else "a queue of answers"):
            store.queues().send_message(QueueUrl=url, MessageBody=text, MessageAttributes=told, **order)

    def _is_taken(self, url: str, text: str, reason: str = "", of: str = "") -> bool:
        """Whether a queue has taken a text; not, where its messages may not be so long, or hold such characters."""
        from botocore.exceptions import ClientError

        try:
            self._queue(url, text, reason, of)
        except store.StoreUnavailableError as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and cause.response["Error"]["Code"] in _REFUSED:
                return False
            raise
        return True

    def _bury(self, text: str, reason: str) -> None:
        """Lay a message among the dead letters, or the head of one for which there is no room beside its reason. Raises
        StoreUnavailableError: then it gets there in its own time."""
        if not (url := self._config.dead_messages_queue):
            raise store.StoreUnavailableError("there is no queue of dead letters")
        while text:
            if self._is_taken(url, text, reason):
                return
            text = text[: len(text) // 2]
        raise store.StoreUnavailableError("the queue of dead letters does not take it")


@contextmanager
def _for_itself(name: str, failed: list[str]) -> Iterator[None]:
    """Whatever comes in the way of a message is no other's: it alone comes again."""
    try:
        yield
    except Exception as error:
        ours = isinstance(error, store.StoreUnavailableError | ApiError | BusyError)  # any other may hold what was sent
        log.error("message %s comes again: %s", name, error if ours else type(error).__name__)
        failed.append(name)


def _work(message: Message, name: str, came: datetime) -> Work:
    """Known by its sender's id for 45 days; else by SQS's own and its time."""
    own = message.id if message.id is not None else f"{name}\n{came.isoformat()}"
    named = hashlib.sha256(f"{message.account}\n{own}\n{message.asked}".encode("utf-8", "surrogatepass")).hexdigest()
    identity = None
    if message.id is not None:
        of_id = hashlib.sha256(message.id.encode("utf-8", "surrogatepass")).hexdigest()
        identity = Identity("message", of_id, message.asked, entries.MESSAGE_S)
    return Work(named[:32], named, came, "message", identity)
