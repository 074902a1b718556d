from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import boto3
import pytest
from moto import mock_aws

from handler import store
from handler.billing.ledger import Ledger, Record, Work
from tests.stack.ministack import MiniStack, Tables

WORK = Work("9f" * 16, "a3c0ffee12345678", datetime(2026, 11, 23, 9, 5, 7, 42, UTC), "http")
RECORD = Record(WORK, "acct_acme", "key_1", "bge-m3", 5, 1, Decimal("0.01"))


def test_a_records_key_is_that_of_the_design() -> None:
    assert RECORD.key() == {
        "pk": {"S": "acct_acme#2026-11-23#a"},
        "sk": {"S": f"09:05#a3c0ffee12345678#07.000042#{'9f' * 16}"},
    }


def test_a_records_time_is_utc_whatever_zone_it_came_in() -> None:
    elsewhere = WORK.time.astimezone(timezone(timedelta(hours=14)))
    assert replace(RECORD, work=replace(WORK, time=elsewhere)).key() == RECORD.key()


def test_a_record_is_written_once_and_never_changed(tables: Tables) -> None:
    ledger = Ledger(store.dynamodb, tables.usage)
    record = replace(RECORD, account="acct_once")
    assert ledger.write(record) is True
    assert ledger.write(replace(record, tokens=9_999)) is False
    item = store.dynamodb().get_item(TableName=tables.usage, Key=record.key(), ConsistentRead=True)["Item"]
    assert item == record.item()
    assert (item["tokens"], item["requests"], item["usd_per_mtok"]) == ({"N": "5"}, {"N": "1"}, {"N": "0.01"})


def test_the_longest_record_is_one_write_unit() -> None:
    """By DynamoDB's rule of item sizes: names and values in UTF-8, 1,024 bytes a unit."""
    longest = replace(RECORD, account="x" * 64, model="sentence-transformers/all-MiniLM-L6-v2", tokens=300_000)
    assert sum(len(name) + len(next(iter(value.values()))) for name, value in longest.item().items()) < 1024


@mock_aws
def test_a_replayed_write_leaves_one_record_in_process_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """moto, a second reading of conditional writes, so that the ledger does not lean on one emulator's alone."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)  # the other emulator's
    client = boto3.client("dynamodb", region_name="us-east-1")
    client.create_table(
        TableName="Usage",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    )
    ledger = Ledger(lambda: client, "Usage")
    assert [ledger.write(RECORD) for _ in range(3)] == [True, False, False]
    assert client.scan(TableName="Usage")["Items"] == [RECORD.item()]
    assert "amazonaws.com" in client.meta.endpoint_url


def test_a_ledger_out_of_reach_says_so(ministack: MiniStack) -> None:
    with pytest.raises(store.StoreUnavailableError):
        Ledger(store.dynamodb, "no-such-table").write(RECORD)
