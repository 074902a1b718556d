"""Objects that are put into the bucket become batches, through S3's own notifications."""

import copy
import json
import time
import uuid
from typing import Any

import boto3
import pytest

from handler import store
from handler.batches.objects import Objects
from handler.batches.queue import Steps
from handler.contract.files import Page
from handler.events import passes
from handler.events.shards import Pointers
from tests.batches.works import Works, line
from tests.conftest import HOUSE
from tests.stack.queues import Queue


@pytest.fixture
def told(bucket: str) -> Queue:
    """The queue that S3 tells of objects."""
    queue = Queue()
    attributes = boto3.client("sqs").get_queue_attributes(QueueUrl=queue.url, AttributeNames=["QueueArn"])
    arn = attributes["Attributes"]["QueueArn"]
    rules: Any = [{"Name": "prefix", "Value": "in/"}, {"Name": "suffix", "Value": ".jsonl"}]
    boto3.client("s3").put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={
            "QueueConfigurations": [
                {"QueueArn": arn, "Events": ["s3:ObjectCreated:*"], "Filter": {"Key": {"FilterRules": rules}}}
            ]
        },
    )
    return queue


def put(bucket: str, key: str, *lines: bytes) -> None:
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=b"".join(lines))


def events(queue: Queue, count: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 60
    while len(found := queue.messages()) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


@pytest.fixture
def door(works: Works) -> Pointers:
    return Pointers(passes.objects(works.config))


def test_a_file_that_is_put_is_done_and_its_batch_is_the_accounts(
    works: Works, bucket: str, told: Queue, door: Pointers
) -> None:
    key = f"in/{works.account}/2026-11-25/product texts, part#1 é.jsonl"
    put(bucket, key, line("1"), line("2"))
    put(bucket, f"in/{works.account}/readme.txt", b"nothing")
    found = events(told, 1)
    for _ in range(2):  # the same event twice is one batch
        assert door({"Records": found}, None) == {"batchItemFailures": []}
    works.until_quiet()
    [batch] = works.jobs.page(works.account, Page(10))[0]
    done = works.ended(batch)
    assert (done.batch.status, [*done.output]) == ("completed", ["1", "2"])
    assert done.batch.metadata == {"source": f"s3://{bucket}/{key}"}
    assert works.billed() == (done.tokens, 2)
    assert boto3.client("s3").head_object(Bucket=bucket, Key=f"out/{works.account}/{batch.id}_output.jsonl")


def test_the_same_file_put_again_is_another_batch(works: Works, bucket: str, told: Queue, door: Pointers) -> None:
    for text in ("one", "two"):
        put(bucket, f"in/{works.account}/again.jsonl", line(text))
    door({"Records": events(told, 2)}, None)
    assert len(works.jobs.page(works.account, Page(10))[0]) == 2


@pytest.mark.parametrize("told_apart_by", ["sequencer", "versionId"])
def test_two_puts_of_one_moment_are_two_batches(works: Works, told_apart_by: str) -> None:
    event = json.loads((HOUSE / "events/s3.json").read_text())
    bucket, put = (event["Records"][0]["s3"][each] for each in ("bucket", "object"))
    put["key"] = f"in/{works.account}/again.jsonl"
    del put["versionId"]  # which the objects of a bucket without versions have not
    objects = Objects(works.jobs, Steps(store.queues, works.plans.url), bucket["name"])
    for name in ("1", "2", "2"):
        put[told_apart_by] = name
        objects.take(json.dumps(event))
    assert len(works.jobs.page(works.account, Page(10))[0]) == 2


def test_a_file_that_is_replaced_before_it_is_read_is_not_done_as_the_one_it_was(
    works: Works, bucket: str, told: Queue, door: Pointers
) -> None:
    for name in ("first", "second"):
        put(bucket, f"in/{works.account}/again.jsonl", line(name))
    door({"Records": events(told, 2)}, None)
    works.until_quiet()
    batches = works.jobs.page(works.account, Page(10))[0]
    done = {each.status: works.ended(each) for each in batches}
    assert [*done["completed"].output] == ["second"]
    assert [fault.code for fault in done["failed"].batch.faults] == ["file_not_found"]
    assert works.billed() == (done["completed"].tokens, 1)


def test_a_file_that_is_replaced_between_its_plan_and_its_shards_is_not_done_as_the_one_it_was(
    works: Works, bucket: str, told: Queue, door: Pointers
) -> None:
    key = f"in/{works.account}/again.jsonl"
    put(bucket, key, *(line(f"first-{n}") for n in range(20)))
    door({"Records": events(told, 1)}, None)
    works.plans.deliver(works.planner)
    put(bucket, key, *(line(f"later-{n}") for n in range(20)))
    works.until_quiet()
    [batch] = works.jobs.page(works.account, Page(10))[0]
    assert (batch.status, batch.total, batch.completed, batch.failed) == ("completed", 20, 0, 20)
    assert works.ended(batch).output == {}
    assert works.billed() == (0, 0)


def test_the_sample_event_makes_its_batch(works: Works) -> None:
    event = json.loads((HOUSE / "events/s3.json").read_text())
    bucket = event["Records"][0]["s3"]["bucket"]["name"]
    event["Records"][0]["s3"]["object"]["sequencer"] = uuid.uuid4().hex
    Objects(works.jobs, Steps(store.queues, works.plans.url), bucket).take(json.dumps(event))
    found, _ = works.jobs.page("acct_acme", Page(10))
    assert found[0].metadata == {"source": f"s3://{bucket}/in/acct_acme/2026-11-22/product texts, part#1.jsonl"}


def test_s3s_test_event_and_objects_elsewhere_make_none(works: Works, caplog: pytest.LogCaptureFixture) -> None:
    event = json.loads((HOUSE / "events/s3.json").read_text())
    bucket = event["Records"][0]["s3"]["bucket"]["name"]
    objects = Objects(works.jobs, Steps(store.queues, works.plans.url), bucket)
    objects.take('{"Service":"Amazon S3","Event":"s3:TestEvent"}')
    for key in ("out/a/b.jsonl", "in/b.jsonl", "in/a/b.json", "in/a%23b/c.jsonl"):
        other = copy.deepcopy(event)
        other["Records"][0]["s3"]["object"]["key"] = key
        objects.take(json.dumps(other))
        assert key in caplog.messages.pop()
    Objects(works.jobs, Steps(store.queues, works.plans.url), "another-bucket").take(json.dumps(event))
    assert works.plans.messages() == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Records":[{}]}', '{"Records":7}'])
def test_what_is_no_notification_comes_again_until_it_is_given_up(door: Pointers, text: str) -> None:
    message = {"messageId": "m", "body": text, "attributes": {"ApproximateReceiveCount": "1"}}
    assert door({"Records": [message]}, None) == {"batchItemFailures": [{"itemIdentifier": "m"}]}
