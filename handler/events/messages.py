"""The door of messages that ask for embeddings: all of an event are given to the engine together, whoever sent them,
and each is answered, recorded and acknowledged for itself, in this order."""

import hashlib
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from handler import store
from handler.batches import lines
from handler.billing import entries
from handler.billing.ledger import Outcome, Record, Work
from handler.billing.work import Identity
from handler.bulk import Answered, Payer
from handler.contract import errors, messages
from handler.contract.body import JSON
from handler.contract.errors import ApiError
from handler.contract.messages import Message, UnreadableError
from handler.events import deadline
from handler.settings import Settings

if TYPE_CHECKING:
    from handler.service import Service

log = logging.getLogger(__name__)

_LARGEST = 1 << 20  # bytes of a message (SQS developer guide)
_ATTRIBUTE = 250  # characters of a reason


@dataclass(frozen=True)
class _Asked:
    """A message with who pays for it, and the piece of work that it is; `answer`: what it gets without the engine."""

    id: str
    message: Message
    work: Work
    payer: Payer | None
    answer: Answered | None = None


class Messages:
    """A door for events of SQS whose mapping has ReportBatchItemFailures. Calling it answers which messages have to
    come again; the others have been answered and recorded, or lie with their reason among the dead letters."""

    def __init__(self, config: Settings, service: "Service") -> None:
        self._config, self._service, self._ledger = config, service, service.ledger

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, list[dict[str, str]]]:
        until = deadline.of(context)
        failed: list[str] = []
        asked = [found for each in event["Records"] if (found := self._read(each, failed))]
        ready = [each for each in asked if each.answer is None and each.payer is not None]
        pairs = [(each.message.body, each.payer) for each in ready if each.payer is not None]
        try:
            answers = iter(self._service.bulk.answer_each(pairs, until) if pairs else [])
            for each in asked:
                answer = each.answer if each.answer is not None else next(answers)
                if answer is None or answer.again or not self._settle(each, answer):
                    failed.append(each.id)
        except Exception as error:  # the engine's; its message may hold what was sent
            log.error("%d messages come again: %s", len(asked), type(error).__name__)
            failed = [each["messageId"] for each in event["Records"]]
        return {"batchItemFailures": [{"itemIdentifier": each} for each in failed]}

    def _read(self, record: dict[str, Any], failed: list[str]) -> _Asked | None:
        """What a message asks for; None where it is dealt with: laid among the dead letters, or to come again."""
        name = record["messageId"]
        try:
            message = messages.read(record["body"], self._config.results_bucket, self._config.result_destinations)
        except UnreadableError as error:
            log.error("message %s is dead: %s", name, error)
            if not self._bury(record["body"], str(error)):
                failed.append(name)
            return None
        came = datetime.fromtimestamp(int(record["attributes"]["SentTimestamp"]) / 1000, UTC)
        work = _work(message, name, came)
        if message.fault is not None:
            return _Asked(name, message, work, None, Answered.refused(message.fault))
        try:
            return _Asked(name, message, work, self._service.pays(message.account, message.key_id, came))
        except ApiError as error:
            return _Asked(name, message, work, None, Answered.refused(error))
        except store.StoreUnavailableError as error:
            log.error("message %s comes again: %s", name, error)
            failed.append(name)
            return None

    def _settle(self, asked: _Asked, answer: Answered) -> bool:
        """Answer, then record. Whether both are done."""
        try:
            record = self._record(asked, answer)
            if record is None:
                self._send(asked, answer)
            elif record.work.identity is not None and self._ledger.is_reused(record):
                self._send(asked, Answered.refused(errors.KEY_REUSED.error(param="id")))
            else:
                self._send(asked, answer)
                if self._ledger.write(record) is Outcome.REUSED:  # since we looked: but its answer has left
                    self._ledger.settle(record)
        except store.StoreUnavailableError as error:
            log.error("message %s comes again: %s", asked.id, error)
            return False
        return True

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
        if place.queue and len(line) <= _LARGEST:
            self._queue(place.queue, line.decode())
            return
        bucket, prefix = place.bucket or self._config.results_bucket, place.prefix
        prefix = prefix if place.bucket else f"out/{message.account}/messages/"
        key = f"{prefix}{work.id}.json"
        with store.answering(bucket):
            store.s3().put_object(Bucket=bucket, Key=key, Body=line, ContentType=JSON)
        if place.queue:
            pointer = {"custom_id": message.custom_id, "result": {"s3": f"s3://{bucket}/{key}"}}
            self._queue(place.queue, json.dumps(pointer))

    def _queue(self, url: str, text: str) -> None:
        with store.answering("a queue of answers"):
            store.queues().send_message(QueueUrl=url, MessageBody=text)

    def _bury(self, text: str, reason: str) -> bool:
        """Lay a message among the dead letters; False where that cannot be done: then it gets there in its own time."""
        if not (url := self._config.dead_messages_queue):
            return False
        told = {"reason": {"DataType": "String", "StringValue": reason[:_ATTRIBUTE]}}
        try:
            with store.answering("the queue of dead letters"):
                store.queues().send_message(QueueUrl=url, MessageBody=text, MessageAttributes=told)
        except store.StoreUnavailableError as error:
            log.error("a dead message stays: %s", error)
            return False
        return True


def _work(message: Message, name: str, came: datetime) -> Work:
    """Known by its sender's id for 45 days; else by SQS's own and its time."""
    own = message.id if message.id is not None else f"{name}\n{came.isoformat()}"
    named = hashlib.sha256(f"{message.account}\n{own}\n{message.asked}".encode("utf-8", "surrogatepass")).hexdigest()
    identity = None
    if message.id is not None:
        of_id = hashlib.sha256(message.id.encode("utf-8", "surrogatepass")).hexdigest()
        identity = Identity("message", of_id, message.asked, entries.MESSAGE_S)
    return Work(named[:32], named, came, "message", identity)
