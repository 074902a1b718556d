"""Records that come to the ledger after their hour was summed: months count them then, and are exact in the end."""

import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handler import store
from handler.billing import outbox, records
from handler.billing.ledger import Ledger, Record
from handler.billing.limits import Counters
from handler.billing.register import Register
from handler.events.drain import Drain
from tests.billing.conftest import CLOSED, NOON, Clock
from tests.conftest import HOUSE
from tests.stack import faults
from tests.stack.ministack import MiniStack
from tests.stack.quotas import HOUR, Quota, used


@pytest.mark.parametrize("days", [0, 3, 9])
def test_a_record_that_waited_in_the_queue_is_counted_when_it_is_written(quota: Quota, clock: Clock, days: int) -> None:
    """Its hour was summed without it meanwhile, and its month may be over."""
    quota.use(1)
    quota.count(5)
    waited = quota.record(5)
    clock.now = CLOSED + 300 + days * 86400
    quota.correct()
    assert quota.month() == used(1), "the ledger does not have it"
    assert quota.deliver(waited)
    assert quota.month() == quota.month(quota.owner) == used(6)
    for _ in range(3):
        quota.correct()
        assert quota.month() >= used(6), "never behind"
        clock.now += HOUR
    quota.correct()
    assert quota.month() == quota.month(quota.owner) == quota.recorded() == used(6)
    assert quota.hours() == {}


def test_a_record_that_is_written_before_its_hour_is_closed_is_not_counted_again(quota: Quota, clock: Clock) -> None:
    quota.count(5)
    waited = quota.record(5)
    clock.now = CLOSED - 601  # clocks are ten minutes apart at most
    assert quota.deliver(waited)
    assert quota.month() == used(5)
    clock.now += 601
    quota.correct()
    assert quota.month() == quota.recorded() == used(5)


def test_what_has_no_limits_gets_no_counters_by_being_late(quota: Quota, clock: Clock) -> None:
    waited = quota.record(5)
    clock.now = CLOSED
    assert quota.deliver(waited)
    assert quota.item() == quota.item(quota.owner) == {}
    bare = Drain(
        Ledger(store.dynamodb, quota.tables.usage),
        Counters(store.dynamodb, "", clock),
        quota.books.rollups.register,
    )
    assert quota.deliver(quota.record(5, NOON), bare), "without a table of limits there is nothing to count"


def test_a_record_that_is_written_and_not_counted_comes_again(quota: Quota, clock: Clock) -> None:
    quota.count(5)
    waited = quota.record(5)
    clock.now = CLOSED
    quota.correct()
    client = faults.client("UpdateItem", 2, code="ThrottlingException", status=400, done=False)
    door = quota.drain(lambda: client)
    assert not quota.deliver(waited, door)
    assert quota.recorded() == used(5)
    assert quota.deliver(waited, door)
    assert quota.month() == quota.month(quota.owner) == used(5)


def test_a_function_that_ends_between_writing_and_counting_or_after_both_leaves_the_month_ahead_at_most(
    quota: Quota, clock: Clock
) -> None:
    quota.count(5)
    waited = quota.record(5)
    clock.now = CLOSED
    quota.correct()

    class Dies(Counters):
        def late(self, *_: Record) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quota.deliver(
            waited,
            Drain(Ledger(store.dynamodb, quota.tables.usage), Dies(store.dynamodb, ""), quota.books.rollups.register),
        )
    assert quota.deliver(waited)
    assert quota.month() == used(5)
    assert quota.deliver(waited, quota.drain(faults.lossy(1))), "it comes again, and an answer is lost"
    assert quota.month() == used(15)
    clock.now += 2 * HOUR
    quota.correct()
    assert quota.month() == quota.month(quota.owner) == used(5)


def test_a_late_record_of_which_the_stream_tells_nothing_is_in_its_month_for_good(quota: Quota, clock: Clock) -> None:
    """Its hour is far outside of those that every event sums."""
    quota.use(1)
    quota.count(5)
    waited = quota.record(5)
    clock.now = CLOSED + 3 * HOUR + 300
    quota.hourly()
    assert quota.month() == used(1)
    event = {"Records": [{"messageId": "1", "body": records.dumps(waited)}]}
    assert quota.drain()(event, None) == {"batchItemFailures": []}
    quota.books.records.append(waited)
    for _ in range(3):
        assert min(quota.month(), quota.month(quota.owner)) >= used(6), "never behind"
        clock.now += HOUR
        quota.hourly()
    assert quota.month() == quota.month(quota.owner) == used(6)
    assert quota.books.agree()


@pytest.mark.parametrize("done", [False, True])
def test_a_late_record_whose_hour_cannot_be_noted_comes_again(quota: Quota, clock: Clock, done: bool) -> None:
    waited = quota.record(5)
    clock.now = CLOSED
    client = faults.client("UpdateItem", 2, code="ThrottlingException", status=400, done=done)
    ledger, counters = Ledger(store.dynamodb, quota.tables.usage), Counters(store.dynamodb, quota.tables.limits, clock)
    door = Drain(ledger, counters, Register(lambda: client, quota.tables.rollups))
    assert not quota.deliver(waited, door)
    assert quota.deliver(waited, door)
    assert len(quota.books.entry().late) == 1


def test_what_is_replayed_from_a_log_is_counted_too_and_its_hour_summed_again(
    quota: Quota, clock: Clock, ministack: MiniStack, tmp_path: Path
) -> None:
    """The tool goes by the machine's clock. The stream tells nothing of it."""
    clock.now = came = time.time() - 5 * HOUR
    month = f"{datetime.fromtimestamp(came, UTC):%Y-%m}"
    quota.use(1)
    clock.now += 5 * HOUR
    quota.hourly()
    lost = quota.record(7, came)
    log = tmp_path / "log"
    log.write_text(outbox._line(lost, "emblet-Embed") + "\n")
    tables = quota.tables
    call = [sys.executable, "-m", "handler.billing.ledger", "replay", str(log), "--table", tables.usage]
    call += ["--entries", tables.entries, "--rollups", tables.rollups, "--limits", tables.limits]
    for times in (1, 2):
        done = subprocess.run(call, cwd=HOUSE, env=ministack.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert quota.month(month=month) == quota.month(quota.owner, month) == used(1 + 7 * times)
    quota.books.records.append(lost)
    clock.now += 3 * HOUR
    quota.hourly()
    assert quota.month(month=month) == quota.month(quota.owner, month) == used(8)
    assert quota.books.agree()
