"""The stream's door: whatever AWS does with its events, rollups end as the ledger's sums."""

import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from handler import store
from handler.events.follow import Follower
from tests.stack import faults
from tests.stack.books import FUNCTION, NOON, Books, entry, failures
from tests.stack.ministack import Tables

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

Event = dict[str, Any]


@pytest.fixture
def books(tables: Tables) -> Books:
    return Books(tables)


def deliver(door: Callable[[Event, None], Event], event: Event, attempts: int = 100) -> int:
    """As AWS does: from the first record that failed on, again and again; how often it was asked."""
    records = event["Records"]
    for attempt in range(1, attempts + 1):
        failed = door({"Records": records}, None)["batchItemFailures"]
        if not failed:
            return attempt
        numbers = [record["dynamodb"]["SequenceNumber"] for record in records]
        records = records[numbers.index(failed[0]["itemIdentifier"]) :]
    raise AssertionError(f"still failing: {failed}")


def asked(client: "DynamoDBClient", operation: str) -> list[dict[str, Any]]:
    """The calls of this kind that are made from now on."""
    calls: list[dict[str, Any]] = []
    client.meta.events.register(f"provide-client-params.dynamodb.{operation}", lambda params, **_: calls.append(params))
    return calls


def test_records_become_a_minute_an_hour_and_a_day(books: Books) -> None:
    books.write_some(100)
    assert books.stream(books.event(), None) == failures()
    assert len(books.held("1m")) > 50
    assert [len(books.held(width)) for width in ("1h", "1d")] == [3, 1]
    assert books.agree()


def test_a_batch_sums_each_bucket_once(books: Books) -> None:
    client = boto3.client("dynamodb")
    books.write(*(books.record(NOON + timedelta(seconds=second)) for second in range(0, 110, 2)))
    consumer, queries, puts = books.seen_by(lambda: client), asked(client, "Query"), asked(client, "PutItem")
    assert consumer.stream(books.event(), None) == failures()
    assert len(queries) == 2 * 16 + 1 + 1, "two minutes of sixteen partitions, an hour, a day"
    rows = [put for put in puts if put["Item"]["pk"] != {"S": "accounts"}]
    assert len(rows) == 2 + 1 + 1, "two minutes, an hour, a day"
    assert books.agree()


def test_events_that_come_again_late_and_in_disorder_change_nothing(books: Books) -> None:
    books.write_some(60)
    whole = books.event()["Records"]
    for seed in range(4):
        records = random.Random(seed).choices(whole, k=40)
        assert books.stream({"Records": records}, None) == failures()
    books.stream({"Records": whole[::-1]}, None)
    before = [books.held(width) for width in ("1m", "1h", "1d")]
    for record in (whole[0], whole[-1], whole[30]):
        books.stream({"Records": [record] * 3}, None)
    assert [books.held(width) for width in ("1m", "1h", "1d")] == before
    assert books.agree()


def test_a_record_of_a_minute_long_past_finds_its_place(books: Books) -> None:
    """As one that waited in the ledger queue for days."""
    books.write()
    books.stream(books.event(), None)
    late = books.record(NOON - timedelta(days=13))
    books.write(late)
    books.stream(books.event(late), None)
    assert books.agree()


@pytest.mark.parametrize("operation", ["PutItem", "Query"])
@pytest.mark.parametrize("done", [False, True])
def test_refusals_and_lost_answers_cost_repetitions_alone(books: Books, operation: str, done: bool) -> None:
    """Every kind of call fails until its fortieth attempt, with and without having been carried out."""
    books.write_some(40, minutes=70)
    client = faults.client(operation, 40, code="InternalServerError", status=500, done=done, attempts=1)
    assert deliver(books.seen_by(lambda: client).stream, books.event()) > 1
    assert books.agree()


def test_the_answer_names_the_first_record_of_what_failed_and_all_else_is_done(books: Books) -> None:
    """Here the second and third minute fail, for good: records that a stranger has put there cannot be read."""
    evening = NOON + timedelta(hours=8)  # in no hour that the tests of the hourly event sum again
    records = [books.record(evening + timedelta(minutes=minute)) for minute in (0, 0, 1, 1, 2, 2)]
    books.write(*records)
    event = books.event()
    for minute in (2, 1):
        stranger = books.record(evening + timedelta(minutes=minute)).item() | {"tokens": {"S": "many"}}
        store.dynamodb().put_item(TableName=books.tables.usage, Item=stranger)
    assert books.stream(event, None) == failures(event["Records"][2])
    assert books.stream({"Records": event["Records"][::-1]}, None) == failures(event["Records"][2])
    assert [bucket.n for width in ("1m", "1h", "1d") for bucket in books.held(width)] == [2, 2, 2]


@pytest.mark.parametrize("width", ["1h", "1d"])
def test_an_hour_or_a_day_that_fails_is_made_when_its_records_come_again(books: Books, width: str) -> None:
    """Though the minute then does not grow any more."""
    books.write()
    client = boto3.client("dynamodb")
    refuse = [True]

    def send(request: Any, **_: Any) -> Any:
        if refuse and f"#{width}#".encode() in request.body and b"ConditionExpression" in request.body:
            raise ConnectionError
        return None

    client.meta.events.register("before-send.dynamodb.PutItem", send)
    consumer, event = books.seen_by(lambda: client), books.event()
    assert consumer.stream(event, None) == failures(*event["Records"])
    assert not books.agree()
    refuse.clear()
    assert consumer.stream(event, None) == failures()
    assert books.agree()


def test_consumers_that_race_writers_and_each_other_end_at_the_ledgers_sums(books: Books) -> None:
    """Four consumers get every record twice, in batches of their own, in disorder, some over a faulty network, while
    records are still being written."""
    made = [books.record(NOON + timedelta(seconds=second), second) for second in range(0, 600, 2)]
    chance = random.Random(7)
    consumers = [
        books,
        books.seen_by(store.dynamodb),
        books.seen_by(_faulty("PutItem", done=True)),
        books.seen_by(_faulty("Query", done=False)),
    ]
    with ThreadPoolExecutor(8) as threads:
        for batch in _batches(made, 20):
            books.write(*batch)
            for _ in range(2):
                event = books.event(*chance.sample(batch, len(batch)))
                threads.submit(deliver, chance.choice(consumers).stream, event)
    assert books.agree()


def _batches(records: list[Any], size: int) -> list[list[Any]]:
    return [records[start : start + size] for start in range(0, len(records), size)]


def _faulty(operation: str, *, done: bool) -> "Callable[[], DynamoDBClient]":
    client = faults.client(operation, 25, code="ProvisionedThroughputExceededException", status=400, done=done)
    return lambda: client


def caught_up(tables: Tables) -> Follower:
    """One that is past what other tests have written."""
    follower = Follower(tables.usage, lambda *_: failures())
    while follower.poll():
        pass
    return follower


def test_the_real_stream_says_all_that_the_door_needs(books: Books, tables: Tables) -> None:
    """Of the table as the template has it, whose stream holds keys alone."""
    follower = caught_up(tables)
    made = books.write_some(30)
    seen: list[Event] = []

    def door(event: Event, context: None) -> Event:
        seen.append(event)
        return books.stream(event, context)

    follower._door = door
    assert follower.poll() == len(made)
    assert follower.poll() == 0
    assert books.agree()
    assert {name for event in seen for record in event["Records"] for name in record["dynamodb"]} == {
        "ApproximateCreationDateTime",
        "Keys",
        "SequenceNumber",
        "SizeBytes",
        "StreamViewType",
    }


def test_what_a_follower_could_not_hand_over_comes_again_with_all_behind_it(books: Books, tables: Tables) -> None:
    asked_for: list[list[str]] = []

    def door(event: Event, _: None) -> Event:
        numbers = [record["dynamodb"]["SequenceNumber"] for record in event["Records"]]
        asked_for.append(numbers)
        return failures(event["Records"][1]) if len(asked_for) == 1 else failures()

    follower = caught_up(tables)
    follower._door = door
    books.write(books.record(), books.record(), books.record())
    assert [follower.poll() for _ in range(3)] == [3, 2, 0]
    assert asked_for[1] == asked_for[0][1:]


def test_a_change_or_a_deletion_raises_an_alarm_that_names_keys_alone(
    books: Books, capsys: pytest.CaptureFixture[str]
) -> None:
    books.write()
    [record] = books.records
    images = {"NewImage": record.item(), "OldImage": record.item()}
    entries = [entry(record.key(), name) for name in ("INSERT", "MODIFY", "REMOVE")]
    for each in entries:
        each["dynamodb"] |= images
    assert books.stream({"Records": entries}, None) == failures()
    [line] = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    [shape] = told["_aws"]["CloudWatchMetrics"]
    assert (shape["Namespace"], shape["Dimensions"]) == ("emblet", [["FunctionName"]])
    assert shape["Metrics"] == [{"Name": "IrregularWrites", "Unit": "Count"}]
    assert (told["IrregularWrites"], told["FunctionName"]) == (2, FUNCTION)
    assert told["writes"] == [{"event": name, "key": record.key()} for name in ("MODIFY", "REMOVE")]
    assert set(told) == {"timestamp", "level", "_aws", "FunctionName", "IrregularWrites", "writes"}
    assert told["level"] == "ERROR", "what LOG_LEVEL lets through in any case"
    assert books.agree()


def test_an_item_that_is_no_record_raises_the_alarm_and_stops_nothing(
    books: Books, capsys: pytest.CaptureFixture[str]
) -> None:
    books.write()
    event = books.event()
    event["Records"].insert(0, entry({"pk": {"S": "note"}, "sk": {"S": "to self"}}, "INSERT"))
    assert books.stream(event, None) == failures()
    assert json.loads(capsys.readouterr().out)["IrregularWrites"] == 1
    assert books.agree()


def test_a_deletion_of_everything_is_one_line_that_a_log_takes(
    books: Books, capsys: pytest.CaptureFixture[str]
) -> None:
    key = books.record().key()
    books.stream({"Records": [entry(key, "REMOVE") for _ in range(10_000)]}, None)
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["IrregularWrites"] == 10_000
    assert len(line) < 64_000


def test_ordinary_records_raise_no_alarm(books: Books, capsys: pytest.CaptureFixture[str]) -> None:
    books.write_some(20)
    books.stream(books.event(), None)
    assert capsys.readouterr().out == ""
