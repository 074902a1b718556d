"""A month of a key or account against the ledger: ahead while hours are open, equal once they are closed."""

import json
from datetime import UTC, datetime

import pytest

from handler import store
from handler.billing.corrections import METRIC, Corrections
from handler.billing.recount import Recount
from handler.billing.renewal import Renewed
from handler.contract.limits import Limits
from tests.billing.conftest import CLOSED, NOON, Clock
from tests.stack.quotas import HOUR, NOTHING, PRICE, Quota, used


def test_what_was_counted_and_not_recorded_is_taken_off_key_and_account(quota: Quota, clock: Clock) -> None:
    quota.use(5)
    quota.count(100)  # refused, failed, or counted twice
    quota.use(3, key="key_other")
    clock.now = CLOSED
    assert quota.correct() == 3
    assert quota.month() == used(5)
    assert quota.month("key_other") == used(3)
    assert quota.month(quota.owner) == used(8)
    assert quota.hours() == quota.hours(quota.owner) == {}


def test_a_keys_records_are_summed_over_its_line_items(quota: Quota, clock: Clock) -> None:
    for door in ("http", "batch"):
        quota.count(5)
        quota.write(quota.record(5, door=door))
    clock.now = CLOSED
    quota.correct()
    assert quota.month() == quota.month(quota.owner) == used(10)


def test_an_hour_stays_as_it_was_counted_until_it_has_been_over_for_an_hour(quota: Quota, clock: Clock) -> None:
    quota.count(5)
    clock.now = CLOSED - 1
    quota.correct()
    assert quota.month() == used(5)
    clock.now = CLOSED
    quota.correct()
    assert quota.month() == NOTHING


def test_what_is_counted_in_a_later_hour_is_never_erased(quota: Quota, clock: Clock) -> None:
    quota.count(100)
    clock.now = CLOSED + 5.0
    quota.count(7)
    quota.correct()
    assert quota.month() == used(7)
    assert quota.hours() == {"2026-11-24T14": 7}


def test_what_is_counted_between_its_reading_and_its_update_stays(quota: Quota, clock: Clock) -> None:
    """The item is read; then others count; then it is updated."""
    quota.count(100)
    clock.now = CLOSED

    class Slow(Recount):
        def hours(self, *_: object) -> None:
            quota.use(7)
            quota.count(2)

    slow = Slow(quota.books.minutes, quota.books.rollups)
    Corrections(store.dynamodb, quota.tables.limits, slow, "", clock)(int(CLOSED) - HOUR)
    assert quota.month() == quota.month(quota.owner) == used(9)


def test_what_was_used_before_there_was_a_limit_is_in_the_month_from_the_next_hour_on(
    quota: Quota, clock: Clock
) -> None:
    for days, hours in ((23, 0), (3, 0), (0, 6), (0, 2)):
        quota.write(quota.record(50, NOON - days * 86400 - hours * HOUR))
    quota.write(quota.record(1000, NOON - 24 * 86400))  # October
    quota.use(5)
    quota.correct()
    assert quota.month() == quota.month(quota.owner) == used(205)
    clock.now = CLOSED
    quota.correct()
    assert quota.month() == used(205)
    with pytest.raises(Exception, match="insufficient_quota"):
        quota.count(6, limits=Limits(tokens_per_month=210))


def test_a_month_is_closed_days_and_hours_of_the_day_at_hand(quota: Quota, clock: Clock) -> None:
    """Whatever the hour at which it is summed: at midnight all are days, before it most are hours."""
    clock.now = start = datetime(2026, 11, 3, 22, 10, tzinfo=UTC).timestamp()
    total = 0
    for hour in range(16):
        clock.now = start + hour * HOUR
        quota.use(hour + 1)
        quota.count(1000)
        total += hour + 1
        quota.correct()
        open_hours = sum(1000 for _ in quota.hours())
        assert quota.month()[0] == total + open_hours
        assert len(quota.hours()) <= 2


@pytest.mark.parametrize("seconds", [0, 3 * 3600])
def test_what_came_in_before_the_months_turn_and_is_counted_after_it_is_in_its_records_month(
    quota: Quota, clock: Clock, seconds: int
) -> None:
    last = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC).timestamp()
    clock.now = last
    quota.use(1)
    clock.now = last + 2 + seconds
    quota.use(20, last)  # seconds is nothing: a request's; otherwise a batch's
    quota.count(500, last)
    quota.use(3)
    assert quota.month(month="2026-11") == used(521)
    assert quota.month(month="2026-12") == used(3)
    for _ in range(2):
        quota.correct()
        assert quota.month(month="2026-11") in (used(521), used(541)), "ahead by what is in the sums, too"
        clock.now += HOUR
    quota.correct()
    assert quota.month(month="2026-11") == used(21)
    assert quota.month(month="2026-12") == used(3)
    assert quota.hours() == {}


def test_a_month_is_forgotten_once_nothing_of_it_can_be_waiting_and_is_not_made_anew(
    quota: Quota, clock: Clock
) -> None:
    quota.count(9)
    clock.now = CLOSED
    quota.correct()
    names = set()
    for days in (6, 34, 35):  # the last of November, and 28 days after it
        clock.now = datetime(2026, 11, 24, 13, tzinfo=UTC).timestamp() + days * 86400
        quota.use(1)
        quota.correct()
        names = {name for name in quota.item() if name.endswith("@2026-11")}
        assert names == ({"tokens@2026-11", "usd@2026-11", "summed@2026-11"} if days < 35 else set())
    clock.now += 3 * HOUR
    quota.correct()
    assert not {name for name in quota.item() if "@2026-11" in name}


def test_a_month_that_is_forgotten_while_it_is_summed_stays_forgotten(
    quota: Quota, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    quota.count(9)
    clock.now = CLOSED

    class Slow(Recount):
        def hours(self, *_: object) -> None:
            for owner in (f"key#{quota.key}", quota.owner):
                store.dynamodb().update_item(
                    TableName=quota.tables.limits,
                    Key={"id": {"S": owner}},
                    UpdateExpression="REMOVE #tokens, #usd",
                    ExpressionAttributeNames={"#tokens": "tokens@2026-11", "#usd": "usd@2026-11"},
                )

    slow = Slow(quota.books.minutes, quota.books.rollups)
    assert Corrections(store.dynamodb, quota.tables.limits, slow, "", clock)(int(CLOSED) - HOUR) == 0
    assert capsys.readouterr().out == "", "nothing is left to do"
    assert quota.month() == NOTHING


def test_an_account_of_which_the_stream_has_lost_everything_is_summed_from_the_ledger(
    quota: Quota, clock: Clock
) -> None:
    for hours in (30, 0):
        quota.write(quota.record(5, NOON - hours * HOUR), heard=False)
    quota.count(5)
    assert quota.account not in quota.books.rollups.accounts()
    clock.now = CLOSED
    quota.correct()
    assert quota.month() == quota.month(quota.owner) == used(10)
    assert quota.books.agree()


def test_a_key_that_is_idle_is_compared_and_not_written(
    quota: Quota, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota.use(5)
    clock.now = CLOSED
    quota.correct()
    clock.now += HOUR
    with monkeypatch.context() as patch:
        patch.setattr(store.dynamodb(), "update_item", None)
        assert quota.correct() == 0


def test_what_is_used_while_the_limit_is_away_is_in_the_month_two_hours_later(quota: Quota, clock: Clock) -> None:
    """Of a key, and an account, that count nothing meanwhile, and whose month has been summed before."""
    quota.use(1)
    clock.now = CLOSED + 300
    quota.hourly()
    assert quota.month() == used(1)
    quota.write(quota.record(1000))
    clock.now += 2 * HOUR
    quota.hourly()
    assert quota.month() == quota.month(quota.owner) == used(1001)
    with pytest.raises(Exception, match="insufficient_quota"):
        quota.count(900, limits=Limits(tokens_per_month=1000))


def test_months_of_an_account_whose_rollups_are_behind_stay_ahead_and_no_others(
    quota: Quota, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    quota.use(5)
    quota.count(100)
    clock.now = CLOSED
    behind = Renewed(behind=frozenset([quota.account]))
    assert quota.corrections()(int(CLOSED) - HOUR, renewed=behind) == 0
    assert json.loads(capsys.readouterr().out)[METRIC] == 2
    assert quota.month() == used(105)
    assert quota.corrections()(int(CLOSED) - HOUR, renewed=Renewed(behind=frozenset(["acct_other"]))) == 2
    assert quota.month() == used(5)


def test_an_event_that_comes_over_a_day_late_corrects_nothing(
    quota: Quota, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Hours that were open at its time may have been forgotten by now."""
    quota.count(5)
    clock.now += 50 * HOUR
    quota.use(1)
    assert set(quota.hours()) == {"2026-11-26T14"}, "the first one is forgotten"
    assert quota.correct(clock.now - 50 * HOUR) == 0
    assert "over a day late" in caplog.text
    assert quota.month() == used(6)
    quota.correct()
    assert quota.month() == used(1), "forgotten or not, what the ledger does not have is taken off"


def test_a_table_that_cannot_be_read_is_a_store_out_of_reach(quota: Quota, clock: Clock) -> None:
    with pytest.raises(store.StoreUnavailableError, match="on no-such-table"):
        Corrections(store.dynamodb, "no-such-table", quota.books.recount, "", clock)(int(clock.now) - HOUR)


def test_the_cost_of_a_token_is_what_its_record_says(quota: Quota, clock: Clock) -> None:
    """A record keeps its price; the month in money is their sum."""
    quota.count(10)
    quota.write(quota.books.record(datetime.fromtimestamp(NOON, UTC), 10, key_id=quota.key, price=PRICE * 3))
    clock.now = CLOSED
    quota.correct()
    assert quota.month() == (10, 3 * used(10)[1])
