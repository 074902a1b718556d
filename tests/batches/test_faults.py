"""Batches whose functions are killed, whose events come twice and in disorder, whose stores are away for a while."""

import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import boto3
import pytest

from handler import store
from handler.batches import careful
from handler.batches import shard as executing
from handler.batches.done import Done
from handler.batches.jobs import Jobs
from handler.batches.queue import PLAN, Shards, Steps
from handler.batches.results import Results
from handler.batches.rows import new_id
from handler.bulk import Answered, Bulk
from handler.contract.batches import Batch
from handler.events import passes
from handler.events.shards import Pointers
from handler.payers import Payer
from handler.store import StoreUnavailableError
from tests.batches.works import Works, line


class KilledError(BaseException):
    """The function ends here, and nothing of it is left."""


# Each call that leaves a trace outside: before it and after it are all the instants at which a function can end.
INSTANTS = {
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


def survive(works: Works, most: int = 200) -> None:
    """Deliver until nothing is left; of a call that ends the function nothing is acknowledged."""
    for _ in range(most):
        try:
            done = works.deliver()
        except KilledError:
            continue
        if not done and not works.plans.messages() and not works.shards.messages():
            return
    raise AssertionError("it does not come to an end")


def check(works: Works, batch: Batch, count: int = 40) -> None:
    works.whole(batch, map(str, range(count)))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("instant", INSTANTS)
def test_a_function_that_ends_at_any_instant_costs_no_line_and_no_token(
    works: Works, kill: Callable[[type, str, bool, int], list[int]], instant: str, after: bool
) -> None:
    kind, name = INSTANTS[instant]
    batch = works.submit(line(str(n)) for n in range(40))
    ended = kill(kind, name, after, 2 if name not in ("plan", "finalize", "end") else 1000)
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
    """Of three generations of shards and more, each would have twice as many messages as the one before."""
    batch = works.submit(line(str(n)) for n in range(100))
    works.plans.deliver(works.planner)
    delivered = 0
    while messages := works.shards.messages():
        assert len(messages) <= works.config.batch_shards_at_once
        for message in messages:
            for _ in range(2):
                assert works.executor({"Records": [message]}, None) == {"batchItemFailures": []}
            works.shards.delete(message)
            delivered += 1
    works.until_quiet()
    check(works, batch, 100)
    assert delivered == works.jobs.get(works.account, batch.id).shards


def test_shards_that_are_out_are_followed_as_their_plan_has_it_whatever_the_setting_is_now(works: Works) -> None:
    batch = works.submit(line(str(n)) for n in range(60))
    works.plans.deliver(works.planner)
    config = replace(works.config, batch_shards_at_once=2 * works.config.batch_shards_at_once)
    works.executor = Pointers(passes.shards(config, works.service, works.jobs))
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


def test_two_attempts_at_a_shard_that_disagree_leave_one_result_and_its_record(works: Works) -> None:
    """Between them the quota is used up: what the first has put is what counts."""
    batch = works.submit(line(str(n)) for n in range(5))
    works.plans.deliver(works.planner)
    [message] = works.shards.messages()
    real = executing.Worker._answer

    def refusing(self: Any, group: Any, payer: Payer, deadline: float | None) -> list[Answered]:
        answers = real(self, group, payer, deadline)
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


# A line that ends whoever executes it


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of texts that say so. What ends a process takes nothing back."""
    answer, leave = executing.Worker._answer, careful.Careful.__exit__

    def dying(self: executing.Worker, group: Any, payer: Payer, deadline: float | None) -> list[Answered]:
        if not group.dead and any(asked.body["input"] == "poison" for _, asked in group.lines):
            raise KilledError
        return answer(self, group, payer, deadline)

    def leaving(self: careful.Careful, kind: Any, *rest: Any) -> None:
        if kind not in (KilledError, GeneratorExit):
            leave(self, kind, *rest)

    monkeypatch.setattr(executing.Worker, "_answer", dying)
    monkeypatch.setattr(careful.Careful, "__exit__", leaving)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("bad", [[7], [0, 3, 9]])
def test_a_shard_that_ends_its_function_loses_no_line_but_those_that_do(works: Works, bad: list[int]) -> None:
    batch = works.submit(line(str(n), "poison" if n in bad else "the quick brown fox") for n in range(20))
    survive(works)
    done = works.ended(works.jobs.get(works.account, batch.id))
    assert done.batch.status == "completed"
    assert {*done.output} == {str(n) for n in range(20) if n not in bad}
    assert {*done.errors} == {str(n) for n in bad}
    for each in done.errors.values():
        assert each["response"]["status_code"] == 500
        assert each["response"]["body"]["error"]["type"] == "server_error"
    assert works.billed() == (done.tokens, 20 - len(bad))


@pytest.mark.parametrize("bad", [[7], [0, 19]])
def test_a_line_that_fails_for_good_without_ending_its_function_is_its_own_error(
    works: Works, bad: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = Bulk._accept

    def failing(self: Bulk, body: Any) -> Any:
        if body["input"] == "poison":
            raise RuntimeError("not to be told")
        return accept(self, body)

    monkeypatch.setattr(Bulk, "_accept", failing)
    batch = works.submit(line(str(n), "poison" if n in bad else "the quick brown fox") for n in range(20))
    survive(works)
    done = works.ended(works.jobs.get(works.account, batch.id))
    assert {*done.output} == {str(n) for n in range(20) if n not in bad}
    assert {*done.errors} == {str(n) for n in bad}
    for each in done.errors.values():
        request = each["response"]["request_id"]
        assert request in each["response"]["body"]["error"]["message"]
        assert "not to be told" not in str(each)
    assert works.billed() == (done.tokens, 20 - len(bad))
