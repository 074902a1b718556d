"""The Rollups table on MiniStack: what is set can be read, and a row never gets older."""

import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import boto3
import pytest

from handler import store
from handler.billing.buckets import WIDTHS, Bucket, Group, Sums
from handler.billing.rollups import Rollups
from tests.stack import faults
from tests.stack.ministack import Tables

A = Group("key_a", "bge-m3", "bge-m3, input_tokens")
B = Group("key_b", "bge-m3", "bge-m3, batch input_tokens")
EVE = int(datetime(2026, 12, 31, 23, 59, tzinfo=UTC).timestamp())
DAY = int(datetime(2026, 11, 23, tzinfo=UTC).timestamp())
BUCKET = Bucket(
    DAY, 3, {A: Sums(12, 3, Decimal("1E-12")), B: Sums(1, 1, Decimal("123456789012345.000000000000000005"))}
)
FOREVER = (DAY - 5 * 86400, EVE + 5 * 86400)

_numbers = itertools.count()


@pytest.fixture
def rollups(tables: Tables) -> Rollups:
    return Rollups(store.dynamodb, tables.rollups)


@pytest.fixture
def account() -> str:
    """One that has no rollups."""
    return f"acct_rollups_{next(_numbers)}"


@pytest.mark.parametrize("width", WIDTHS)
def test_what_is_set_is_read_as_it_was(rollups: Rollups, account: str, width: str) -> None:
    assert rollups.set(account, width, BUCKET) is True
    assert list(rollups.read(account, width, DAY, DAY + 1)) == [BUCKET]


def test_rows_are_those_of_the_design(rollups: Rollups, tables: Tables, account: str) -> None:
    for width in WIDTHS:
        rollups.set(account, width, replace(BUCKET, start=EVE // WIDTHS[width] * WIDTHS[width]))
    keys = {(f"{account}#1m#2026-12-31", "23:59"), (f"{account}#1h#2026-12", "31T23"), (f"{account}#1d#2026", "12-31")}
    for partition, row in keys:
        key = {"pk": {"S": partition}, "sk": {"S": row}}
        item = store.dynamodb().get_item(TableName=tables.rollups, Key=key, ConsistentRead=True)["Item"]
        assert item["n"] == {"N": "3"}
        assert item["groups"]["S"] == (
            '{"bge-m3":{"bge-m3, batch input_tokens":{"key_b":[1,1,"123456789012345.000000000000000005"]},'
            '"bge-m3, input_tokens":{"key_a":[12,3,"0.000000000001"]}}}'
        )


@pytest.mark.parametrize(("width", "steps"), [("1m", 1441), ("1h", 800), ("1d", 400)])
def test_a_stretch_is_read_across_partitions_in_order_from_its_start_up_to_its_end(
    rollups: Rollups, account: str, width: str, steps: int
) -> None:
    """Every boundary that there is: of minutes at midnight, of hours at a month's end, of days at a year's."""
    seconds = WIDTHS[width]
    starts = [EVE // seconds * seconds + step * seconds for step in (-steps, -1, 0, 1, steps)]
    for start in reversed(starts):
        rollups.set(account, width, Bucket(start, 1, {}))

    def read(start: int, end: int) -> list[int]:
        return [bucket.start for bucket in rollups.read(account, width, start, end)]

    assert read(starts[0] - 1, starts[-1] + 1) == starts
    assert read(starts[0], starts[-1]) == starts[:-1]
    assert read(starts[0] + 1, starts[-1] + 1) == starts[1:]
    assert read(starts[2], starts[2] + 1) == [starts[2]]
    assert read(starts[1] + 1, starts[2]) == read(starts[2], starts[2]) == read(starts[3], starts[1]) == []


def test_reading_an_hour_asks_for_nothing_beside_it(rollups: Rollups, tables: Tables, account: str) -> None:
    for start in range(DAY, DAY + 3 * 3600, 1800):
        rollups.set(account, "1m", Bucket(start, 1, {}))
    asked = []
    client = boto3.client("dynamodb")
    client.meta.events.register("provide-client-params.dynamodb.Query", lambda params, **_: asked.append(params))
    assert len(list(Rollups(lambda: client, tables.rollups).read(account, "1m", DAY + 3600, DAY + 7200))) == 2
    [values] = [each["ExpressionAttributeValues"] for each in asked]
    assert (values[":low"], values[":high"]) == ({"S": "01:00"}, {"S": "01:59"})


def test_a_row_is_replaced_by_one_of_more_records_alone(rollups: Rollups, account: str) -> None:
    older, newer = replace(BUCKET, n=2, groups={A: Sums(1, 1)}), replace(BUCKET, n=4, groups={B: Sums(9, 9)})
    assert rollups.set(account, "1m", BUCKET) is True
    for late in (older, replace(BUCKET, groups={}), BUCKET):
        assert rollups.set(account, "1m", late) is False
    assert list(rollups.read(account, "1m", *FOREVER)) == [BUCKET]
    assert rollups.set(account, "1m", newer) is True
    assert list(rollups.read(account, "1m", *FOREVER)) == [newer]


@pytest.mark.usefixtures("patient")
def test_of_many_writers_the_newest_wins(rollups: Rollups, account: str) -> None:
    numbers = [(step * 37) % 101 for step in range(1, 101)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda n: rollups.set(account, "1h", Bucket(DAY, n, {A: Sums(n, n)})), numbers))
    assert list(rollups.read(account, "1h", *FOREVER)) == [Bucket(DAY, 100, {A: Sums(100, 100)})]


def test_accounts_are_those_that_have_any(rollups: Rollups, tables: Tables, account: str) -> None:
    assert account not in rollups.accounts()
    for name in (f"{account}_z", account, f"{account}.A", account):
        rollups.set(name, "1m", BUCKET)
    ours = [name for name in Rollups(store.dynamodb, tables.rollups).accounts() if account in name]
    assert ours == [account, f"{account}.A", f"{account}_z"]


def test_an_account_is_listed_before_it_has_anything(tables: Tables, account: str) -> None:
    """Where the list cannot be written, nothing else is: its rollups would be of an account nobody asks for."""
    client = faults.client("PutItem", 1, code="InternalServerError", status=500, done=False, attempts=1)
    rollups = Rollups(lambda: client, tables.rollups)
    with pytest.raises(store.StoreUnavailableError):
        rollups.set(account, "1m", BUCKET)
    assert list(rollups.read(account, "1m", *FOREVER)) == []
    assert rollups.set(account, "1m", BUCKET) is True
    assert account in rollups.accounts()


def test_a_set_whose_answer_is_lost_leaves_the_row(tables: Tables, account: str) -> None:
    Rollups(store.dynamodb, tables.rollups).set(account, "1d", BUCKET)  # which lists the account
    client = faults.client("PutItem", 3, code="InternalServerError", status=500, done=True)
    rollups, newer = Rollups(lambda: client, tables.rollups), replace(BUCKET, n=7)
    rollups.register._known.add(account)
    with pytest.raises(store.StoreUnavailableError):
        rollups.set(account, "1d", newer)
    assert rollups.set(account, "1d", newer) is False
    assert list(rollups.read(account, "1d", *FOREVER)) == [newer]


def test_two_thousand_groups_are_one_item(rollups: Rollups, tables: Tables, account: str) -> None:
    """By DynamoDB's rule of item sizes, 400 KB of names and values; MiniStack has no limit of its own."""
    model = "sentence-transformers/paraphrase-multilingual-mpnet-base-v2-int8"
    sums = Sums(10**15, 10**12, Decimal("123456789.123456789123456789"))
    groups = {
        Group(f"key_{number:016x}", model, f"{model}, {kind}input_tokens"): sums
        for number in range(1000)
        for kind in ("", "batch ")
    }
    sent = []
    client = boto3.client("dynamodb")
    client.meta.events.register("before-call.dynamodb.PutItem", lambda params, **_: sent.append(len(params["body"])))
    Rollups(lambda: client, tables.rollups).set(account, "1m", Bucket(DAY, 10**9, groups))
    assert max(sent) < 400 * 1024 / 2
    [read] = rollups.read(account, "1m", *FOREVER)
    assert read.groups == groups


def test_a_day_of_fifteen_thousand_keys_is_one_item(rollups: Rollups, tables: Tables, account: str) -> None:
    """As text, it would be twice what an item holds. Ids and amounts are random: nothing is easier to pack for it."""
    chance = random.Random(5)
    groups = {
        Group(f"key_{chance.getrandbits(64):016x}", "bge-m3", "bge-m3, input_tokens"): Sums(
            tokens := chance.randrange(10**6), chance.randrange(1000), tokens * Decimal("0.00000001")
        )
        for _ in range(15_000)
    }
    rollups.set(account, "1d", Bucket(DAY, 10**9, groups))
    [item] = store.dynamodb().query(
        TableName=tables.rollups,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": f"{account}#1d#{datetime.fromtimestamp(DAY, UTC):%Y}"}},
    )["Items"]
    assert len(item["groups"]["B"]) < 395_000
    [read] = rollups.read(account, "1d", *FOREVER)
    assert read.groups == groups


def test_a_table_out_of_reach_says_so(tables: Tables) -> None:
    rollups = Rollups(store.dynamodb, "no-such-table")
    for call in (
        lambda: rollups.set("a", "1m", BUCKET),
        rollups.accounts,
        lambda: list(rollups.read("a", "1m", 0, 60)),
    ):
        with pytest.raises(store.StoreUnavailableError, match="ResourceNotFoundException on no-such-table"):
            call()
