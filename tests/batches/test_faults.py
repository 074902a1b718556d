"""Batches whose functions are killed, whose events come twice and in disorder, whose stores are away for a while."""

import json
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import boto3
import pytest

from handler import store
from handler.batches import shard as executing
from handler.batches.bucket import Bucket
from handler.batches.done import Done
from handler.batches.jobs import Jobs
from handler.batches.queue import PLAN, Shards, Steps
from handler.batches.results import Results
from handler.batches.rows import new_id
from handler.batches.takings import Takings
from handler.bulk import Answered
from handler.contract.batches import Batch
from handler.events.shards import Pointers
from handler.store import StoreUnavailableError
from tests.batches.works import KilledError, Works, line, survive

# Each call that leaves a trace outside: before it and after it are all the instants at which a function can end.
INSTANTS = {
    "put": (Bucket, "put_new"),
    "result": (Results, "put"),
    "settled": (Results, "settle"),
    "counted": (Done, "count"),
    "sent": (Shards, "send"),
    "followed": (Done, "follow"),
    "step": (Steps, "send"),
    "planned": (Jobs, "plan"),
    "finalizing": (Jobs, "finalize"),
    "ended": (Jobs, "end"),
}


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Callable[[type, str, bool, int], list[int]]:
    """End the function before or after every so-manieth call of a method; how often it was ended."""

    def kill(kind: type, name: str, after: bool, every: int) -> list[int]:
        real, calls, ended = getattr(kind, name), iter(range(1, 10_000)), [0]

        def dying(*args: Any, **named: Any) -> Any:
            due = next(calls) % every == 1 or every == 1
            if due and not after:
                ended[0] += 1
                raise KilledError
            answer = real(*args, **named)
            if due:
                ended[0] += 1
                raise KilledError
            return answer

        monkeypatch.setattr(kind, name, dying)
        return ended

    return kill


def check(works: Works, batch: Batch, count: int = 40) -> None:
    works.whole(batch, map(str, range(count)))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("instant", INSTANTS)
def test_a_function_that_ends_at_any_instant_costs_no_line_and_no_token(
    works: Works, kill: Callable[[type, str, bool, int], list[int]], instant: str, after: bool
) -> None:
    kind, name = INSTANTS[instant]
    batch = works.submit(line(str(n)) for n in range(40))
    ended = kill(kind, name, after, 2 if name not in ("plan", "finalize", "end", "put_new") else 1000)
    survive(works)
    assert ended[0] > 0
    check(works, batch)


def test_every_event_delivered_twice_and_in_any_order_changes_nothing(works: Works) -> None:
    batch = works.submit(line(str(n)) for n in range(40))
    chance, seen = random.Random(3), list[tuple[Pointers, dict[str, Any]]]()
    for _ in range(40):
        new = [(works.planner, each) for each in works.plans.messages()]
        new += [(works.executor, each) for each in works.shards.messages()]
        if not new:
            break
        for queue, (door, message) in ((works.plans if d is works.planner else works.shards, (d, m)) for d, m in new):
            queue.delete(message)
            seen.append((door, message))
        again = [*new, *chance.sample(seen, min(4, len(seen)))]
        chance.shuffle(again)
        for door, message in again:
            for _ in range(2):
                assert door({"Records": [message]}, None) == {"batchItemFailures": []}
    check(works, batch)


def test_events_that_come_twice_send_no_more_shards_than_there_are(works: Works) -> None:
    """Of three generations of shards and more, each would have twice as many messages as the one before. Of a plan that
    comes twice the first are out twice, and no others."""
    batch = works.submit(line(str(n)) for n in range(100))
    [plan] = works.plans.messages()
    works.planner({"Records": [plan]}, None)
    works.plans.deliver(works.planner)
    delivered = -works.config.batch_shards_at_once
    while messages := works.shards.messages():
        assert len(messages) <= 2 * works.config.batch_shards_at_once
        for message in messages:
            for _ in range(2):
                assert works.executor({"Records": [message]}, None) == {"batchItemFailures": []}
            works.shards.delete(message)
            delivered += 1
    works.until_quiet()
    check(works, batch, 100)
    assert delivered == works.jobs.get(works.account, batch.id).shards


def test_of_two_that_execute_a_shard_at_once_the_one_who_counts_it_sends_the_next(works: Works) -> None:
    batch = works.submit(line(str(n)) for n in range(100))
    works.plans.deliver(works.planner)
    first, *_ = works.shards.messages()
    settle = Results.settle

    def quicker(self: Results, *told: Any) -> bool:
        assert works.executor({"Records": [first]}, None) == {"batchItemFailures": []}
        return settle(self, *told)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Results, "settle", _once(quicker, settle))
        assert works.executor({"Records": [first]}, None) == {"batchItemFailures": []}
    works.shards.delete(first)
    numbers = [json.loads(message["body"])["number"] for message in works.shards.messages()]
    assert sorted(numbers) == [1, 2, 3]
    works.until_quiet()
    check(works, batch, 100)


def test_shards_that_are_out_are_followed_as_their_plan_has_it_whatever_the_setting_is_now(works: Works) -> None:
    batch = works.submit(line(str(n)) for n in range(60))
    works.plans.deliver(works.planner)
    works.deploy(replace(works.config, batch_shards_at_once=2 * works.config.batch_shards_at_once))
    works.until_quiet()
    check(works, batch, 60)


def test_a_plan_that_came_to_nothing_is_not_that_of_the_file_that_is_there_now(
    works: Works, bucket: str, kill: Callable[[type, str, bool, int], list[int]]
) -> None:
    """An object of in/ was put again, between two attempts at its plan."""
    key = f"in/{works.account}/texts.jsonl"
    put: Any = {"Bucket": bucket, "Key": key}
    boto3.client("s3").put_object(**put, Body=b"".join(line(f"before {n}") for n in range(40)))
    now = time.time()
    made = works.jobs.create(
        Batch(
            id=new_id("batch_", now),
            account=works.account,
            input_file_id=key,
            input_key=key,
            created_at=int(now),
            expires_at=int(now) + 86400,
            output_lasts_s=86400,
        )
    )
    Steps(store.queues, works.plans.url).send(made, PLAN)
    kill(Jobs, "plan", False, 1000)
    with pytest.raises(KilledError):
        works.deliver()
    boto3.client("s3").put_object(**put, Body=b"".join(line(str(n)) for n in range(40)))
    survive(works)
    check(works, made)


@pytest.mark.parametrize("shard_bytes", [700, 6000], ids=["smaller", "larger"])
def test_a_plan_of_two_attempts_that_cut_otherwise_is_the_first_ones(
    works: Works, kill: Callable[[type, str, bool, int], list[int]], shard_bytes: int
) -> None:
    """The function ends with its plan in the bucket, and the stack is updated before it comes again."""
    batch = works.submit(line(str(n)) for n in range(60))
    kill(Jobs, "plan", False, 1000)
    with pytest.raises(KilledError):
        works.deliver()
    works.deploy(replace(works.config, batch_shard_bytes=shard_bytes))
    survive(works)
    check(works, batch, 60)


def test_two_attempts_at_a_shard_that_disagree_leave_one_result_and_its_record(works: Works) -> None:
    """Between them the quota is used up: what the first has put is what counts."""
    batch = works.submit(line(str(n)) for n in range(5))
    works.plans.deliver(works.planner)
    [message] = works.shards.messages()
    real = executing.Worker._answer

    def refusing(self: Any, group: Any, takings: Takings, deadline: float | None) -> list[Answered]:
        answers = real(self, group, takings, deadline)
        assert works.executor({"Records": [message]}, None) == {"batchItemFailures": []}  # another is quicker
        return [Answered(429, b'{"error":{}}', 0) for _ in answers]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executing.Worker, "_answer", _once(refusing, real))
        assert works.executor({"Records": [message]}, None) == {"batchItemFailures": []}
    works.until_quiet()
    check(works, batch, 5)


def _once(first: Any, then: Any) -> Any:
    calls = iter([first])

    def call(*args: Any) -> Any:
        return next(calls, then)(*args)

    return call


@pytest.mark.parametrize("store", ["S3", "DynamoDB", "SQS"])
def test_a_store_that_is_away_for_a_while_costs_time_alone(works: Works, store: str) -> None:
    batch = works.submit(line(str(n)) for n in range(40))
    chance, away = random.Random(5), iter(range(30))

    def flaky(real: Any) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            if chance.random() < 0.4 and next(away, None) is not None:
                raise StoreUnavailableError("away")
            return real(*args, **named)

        return call

    with pytest.MonkeyPatch.context() as patch:
        faulty: dict[str, list[tuple[type, str]]] = {
            "S3": [(Results, "told"), (Results, "put")],
            "DynamoDB": [(Jobs, "find"), (Done, "count"), (Done, "progress")],
            "SQS": [(Shards, "send"), (Steps, "send")],
        }
        for kind, name in faulty[store]:
            patch.setattr(kind, name, flaky(getattr(kind, name)))
        survive(works)
    check(works, batch)
