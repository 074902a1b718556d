"""Months wait for the records that wait: in the ledger queue, in flight, or among its dead letters."""

import json
from typing import Any

import boto3
import pytest

from handler import store
from handler.billing import records
from handler.billing.corrections import METRIC, Corrections
from handler.billing.waiting import Waiting
from handler.contract.limits import Limits
from tests.billing.conftest import CLOSED, Clock
from tests.stack.ministack import MiniStack
from tests.stack.outage import Fault, Outage
from tests.stack.queues import Queue
from tests.stack.quotas import HOUR, Quota, used

LIMIT = Limits(tokens_per_month=1000)


def correct(quota: Quota, queue: Queue) -> None:
    """As the hourly event does it."""
    waiting = Waiting(store.queues, queue.url)
    tables = quota.tables
    quota.hourly(Corrections(store.dynamodb, tables.limits, quota.books.recount, "", quota.clock, waiting=waiting))


def test_a_month_is_not_corrected_while_its_record_waits_and_no_limit_is_passed(
    quota: Quota, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = Queue()
    quota.count(1000, limits=LIMIT)
    queue.send(records.dumps(quota.record(1000)))
    clock.now = CLOSED + 300
    for _ in range(3):
        correct(quota, queue)
        assert json.loads(capsys.readouterr().out)[METRIC] == 1
        with pytest.raises(Exception, match="insufficient_quota"):
            quota.count(1, limits=LIMIT)
        clock.now += HOUR
    assert queue.deliver(quota.drain()) == 1
    clock.now += 2 * HOUR
    correct(quota, queue)
    assert capsys.readouterr().out == ""
    assert quota.month() == quota.month(quota.owner) == used(1000)


def test_a_message_that_somebody_works_on_waits_too() -> None:
    queue = Queue()
    waiting = Waiting(store.queues, queue.url)
    assert waiting() == 0
    queue.send("a record")
    client: Any = boto3.client("sqs")
    [message] = client.receive_message(QueueUrl=queue.url, VisibilityTimeout=60)["Messages"]
    assert waiting() == 1
    client.delete_message(QueueUrl=queue.url, ReceiptHandle=message["ReceiptHandle"])
    assert waiting() == 0
    client.send_message(QueueUrl=queue.url, MessageBody="a record", DelaySeconds=60)
    assert waiting() == 1


def test_dead_letters_wait_too(quota: Quota, clock: Clock) -> None:
    queue, dead = Queue(), Queue()
    queue.redrive_to(dead)
    quota.use(1)
    quota.count(5)
    dead.send("a record")
    clock.now = CLOSED
    correct(quota, queue)
    assert quota.month() == used(6)
    assert dead.deliver(lambda *_: {"batchItemFailures": []}) == 1
    correct(quota, queue)
    assert quota.month() == used(1)


def test_without_a_queue_nothing_waits() -> None:
    assert Waiting(store.queues, "")() == 0


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 400, "code": "AccessDenied"}, {"hang_up": True}])
def test_what_is_not_known_to_be_empty_is_not_taken_for_it(
    quota: Quota, clock: Clock, ministack: MiniStack, fault: dict[str, Any]
) -> None:
    queue = Queue()
    quota.count(5)
    clock.now = CLOSED
    with Outage(ministack.endpoint) as outage:
        client = boto3.client("sqs", endpoint_url=outage.url)
        waiting = Waiting(lambda: client, queue.url.replace(ministack.endpoint, outage.url))
        job = Corrections(store.dynamodb, quota.tables.limits, quota.books.recount, "", clock, waiting=waiting)
        outage.begin(Fault("GetQueueAttributes", 99, **fault))
        with pytest.raises(ExceptionGroup) as raised:
            quota.hourly(job)
        assert raised.group_contains(store.StoreUnavailableError, match="on the ledger queue")
        assert quota.month() == used(5)
        outage.over()
        quota.hourly(job)
    assert quota.month() == used(0)
