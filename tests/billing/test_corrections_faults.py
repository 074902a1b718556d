"""Months under faults: whatever is lost, late, repeated or done at once, they are never behind the ledger, no limit is
passed by a token, and in the end they are what the ledger has."""

import json
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, cast

import boto3
import pytest
from botocore.config import Config

from handler import store
from handler.billing.corrections import METRIC, Corrections
from handler.billing.ledger import Record
from handler.billing.recount import Recount
from handler.billing.renewal import Renewal, Renewed
from handler.billing.rollups import Rollups
from handler.contract.errors import ApiError
from handler.contract.limits import Limits
from handler.events.schedule import Schedule
from tests.billing.conftest import CLOSED, Clock
from tests.stack import faults
from tests.stack.ministack import MiniStack
from tests.stack.outage import Fault, Outage
from tests.stack.quotas import HOUR, NOTHING, Quota, used

# DynamoDB


@pytest.mark.parametrize("times", [1, 2, 3, 99])
@pytest.mark.parametrize(
    ("code", "status", "done"),
    [
        ("ThrottlingException", 400, False),
        ("InternalServerError", 500, False),
        ("InternalServerError", 500, True),
    ],
)
def test_whatever_dynamodb_answers_a_month_is_corrected_once(
    quota: Quota,
    clock: Clock,
    capsys: pytest.CaptureFixture[str],
    code: str,
    status: int,
    done: bool,
    times: int,
) -> None:
    quota.use(4)
    quota.count(5)
    quota.count(9, key="key_other")
    clock.now = CLOSED
    client = faults.client("UpdateItem", times, code=code, status=status, done=done)
    corrected = quota.corrections(lambda: client)(int(CLOSED) - HOUR)
    said = [json.loads(line)[METRIC] for line in capsys.readouterr().out.splitlines()]
    assert corrected + sum(said) <= 3
    assert said == ([3] if times == 99 else [1] if times in (2, 3) else [])
    for owner in ("", quota.owner):
        assert quota.month(owner) >= used(4), "never behind"
    quota.correct()
    assert quota.month() == quota.month(quota.owner) == used(4)
    assert quota.month("key_other") == NOTHING


def test_rollups_out_of_reach_correct_nothing_and_the_next_run_goes_on(
    quota: Quota, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    quota.use(9)
    quota.count(1)
    clock.now = CLOSED
    away = Recount(quota.books.minutes, Rollups(store.dynamodb, "no-such-table"))
    assert Corrections(store.dynamodb, quota.tables.limits, away, "", clock)(int(CLOSED) - HOUR) == 0
    assert json.loads(capsys.readouterr().out)[METRIC] == 2
    assert quota.month() == used(10)
    assert quota.correct() == 2
    assert quota.month() == used(9)


def test_an_account_whose_sums_fail_for_hours_keeps_its_month_ahead_and_nobody_elses(
    quota: Quota, clock: Clock, capsys: pytest.CaptureFixture[str], ministack: MiniStack
) -> None:
    """The stream could not set its rows either; they fail until long after its hour is among the last two."""
    other = Quota(quota.tables, clock)
    quota.use(1)
    quota.count(500)
    quota.write(quota.record(500), heard=False)
    other.use(4)
    other.count(9)
    with Outage(ministack.endpoint) as outage:
        client = boto3.client("dynamodb", endpoint_url=outage.url, config=Config(retries={"total_max_attempts": 1}))
        away = quota.books.seen_by(lambda: client)
        renewal = Renewal(away.recount, lambda: [quota.books.entry()])
        theirs = other.books.renewal()

        def both(closed: int, deadline: float) -> Renewed:
            ours, others = renewal(closed, deadline), theirs(closed, deadline)
            return Renewed(ours.whole | others.whole, ours.behind | others.behind, ours.errors)

        for hour in range(5):
            clock.now = CLOSED + hour * HOUR + 300
            outage.begin(Fault("PutItem", 99, status=500))
            time = f"{datetime.fromtimestamp(clock.now, UTC):%Y-%m-%dT%H:%M:%SZ}"
            with pytest.raises(ExceptionGroup):
                Schedule(cast(Renewal, both), [quota.corrections()])({"time": time}, None)
            assert quota.month() == quota.month(quota.owner) == used(501)
            assert other.month() == used(4)
            assert json.loads(capsys.readouterr().out)[METRIC] == 2
        outage.over()
        clock.now += HOUR
        quota.hourly()
    assert quota.month() == used(501)
    assert quota.books.agree()


# Many at once


@pytest.mark.usefixtures("patient")
def test_many_at_once_change_what_one_does(quota: Quota, clock: Clock) -> None:
    for number in range(10):
        quota.count(5, key=f"key_{number}")
        quota.use(4, key=f"key_{number}")
    clock.now = CLOSED
    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(lambda _: quota.correct(), range(8)))
    assert sum(done) == 11
    assert {quota.month(f"key_{number}") for number in range(10)} == {used(4)}
    assert quota.month(quota.owner) == used(40)
    assert quota.correct() == 0


def test_events_of_two_hours_that_are_worked_on_at_once_do_not_add_up(quota: Quota, clock: Clock) -> None:
    """Both read the item before either updates it. The later one could subtract what the earlier one has."""
    quota.use(4)
    quota.count(100)
    clock.now += HOUR
    quota.use(4)
    quota.count(100)
    clock.now = CLOSED + HOUR + 300
    waiting: list[Callable[[], object]] = [lambda: quota.correct(clock.now - HOUR)]

    class Overtaken(Recount):
        def hours(self, *_: object) -> None:
            waiting.pop()()

    slow = Overtaken(quota.books.minutes, quota.books.rollups)
    Corrections(store.dynamodb, quota.tables.limits, slow, "", clock)(int(clock.now) // HOUR * HOUR - HOUR)
    assert quota.month() >= used(8)
    quota.correct()
    assert quota.month() == quota.month(quota.owner) == used(8)


@pytest.mark.usefixtures("patient")
def test_two_hundred_callers_while_months_are_corrected_pass_no_limit_by_a_token(quota: Quota, clock: Clock) -> None:
    """Half of the month is taken by what failed an hour ago; while that is taken off, they take the rest."""
    limits = Limits(tokens_per_month=1000)
    quota.use(100)
    quota.count(500)
    clock.now = CLOSED + 300
    chance = random.Random(6)
    seen: list[bool] = []

    def call(tokens: int) -> int:
        try:
            quota.count(tokens, limits=limits)
        except ApiError:
            return 0
        return tokens

    def watch(number: int) -> None:
        time.sleep(number / 50)
        quota.correct()
        seen.append(quota.month() >= used(100) and quota.month(quota.owner) >= used(100))

    with ThreadPoolExecutor(50) as callers, ThreadPoolExecutor(4) as correctors:
        watching = [correctors.submit(watch, number) for number in range(8)]
        passed = list(callers.map(call, (chance.randint(1, 9) for _ in range(200))))
        for each in watching:
            each.result()
        passed += callers.map(call, [5] * 200)  # what there is room for by now
    assert all(seen)
    assert len(seen) == 8
    assert quota.month(quota.owner) == used(100 + sum(passed))
    assert 100 + sum(passed) <= 1000
    assert quota.month()[0] >= 100 + sum(passed), "what the account refused has counted on the key"
    assert 1000 - 9 < quota.month()[0] <= 1000
    clock.now += 2 * HOUR
    quota.correct()
    assert quota.month() == used(100)


# All of it


@pytest.mark.parametrize("seed", [1, 2])
def test_through_a_day_of_faults_and_a_months_turn_no_month_is_behind_and_all_are_exact_in_the_end(
    quota: Quota, clock: Clock, seed: int
) -> None:
    """Requests that fail after they were counted, counts whose answers are lost, records that wait in the queue for
    hours, a stream that drops some, messages whose records are of yesterday, clocks apart; an hourly event that is
    late, comes twice, fails in part, or not at all."""
    chance = random.Random(seed)
    clock.now = datetime(2026, 11, 30, 16, 30, tzinfo=UTC).timestamp()
    keys = [f"{quota.key}-{number}" for number in range(2)]
    owners = [*keys, quota.owner]
    waiting: list[Record] = []
    quota.books.renewed(datetime.fromtimestamp(clock.now // HOUR * HOUR, UTC))

    def hourly(client: Any = store.dynamodb, hours_ago: int = 0) -> None:
        quota.hourly(quota.corrections(client), now=clock.now - hours_ago * HOUR)

    def check() -> None:
        for owner in owners:
            for month in ("2026-11", "2026-12"):
                assert quota.month(owner, month) >= quota.recorded(owner, month), "never behind"

    for _ in range(70):
        clock.now += chance.uniform(60, 1500)
        key, tokens = chance.choice(keys), chance.randint(1, 9)
        came = clock.now - chance.choice([0, 1, 100, 86400])
        quota.count(tokens, came, key=key, client=faults.lossy(1) if chance.random() < 0.2 else store.dynamodb)
        record = quota.record(tokens, came, key=key, door="http" if came > clock.now - HOUR else "message")
        fate = chance.random()
        if fate < 0.5:
            heard = record.work.door == "message" or chance.random() < 0.8
            quota.write(record, heard=heard)
        elif fate < 0.8:
            waiting.append(record)
        for each in [each for each in waiting if chance.random() < 0.1]:
            if quota.deliver(each, quota.drain(faults.lossy(1) if chance.random() < 0.3 else store.dynamodb)):
                waiting.remove(each)
        if chance.random() < 0.4:
            hourly(faults.lossy(chance.randint(0, 3)), chance.choice([0, 0, 0, 1]))
        check()
    for each in waiting:
        assert quota.deliver(each)
        check()
    for _ in range(4):
        hourly()
        check()
        clock.now += HOUR
    for owner in owners:
        for month in ("2026-11", "2026-12"):
            assert quota.month(owner, month) == quota.recorded(owner, month)
    assert quota.recorded(quota.owner, "2026-12") > NOTHING
