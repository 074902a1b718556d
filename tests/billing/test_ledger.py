import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from handler import store
from handler.billing.ledger import Ledger, Record, Work
from tests.stack import faults
from tests.stack.ministack import MiniStack, Tables
from tests.stack.process import free_port

HOUSE = Path(__file__).resolve().parents[2]
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


@pytest.mark.parametrize("attempts", [2, 1])
def test_a_write_whose_answers_are_lost_counts_as_written(tables: Tables, attempts: int) -> None:
    """Every attempt reaches DynamoDB, and every answer is lost on the way."""
    record = replace(RECORD, account=f"acct_lost_{attempts}")
    client = faults.client("PutItem", attempts, code="InternalServerError", status=500, done=True, attempts=attempts)
    assert Ledger(lambda: client, tables.usage).write(record) is True
    assert "Item" in client.get_item(TableName=tables.usage, Key=record.key(), ConsistentRead=True)


def test_a_table_that_nobody_answers_for_is_given_up_in_seconds() -> None:
    """The clients that requests use, on a port where nothing listens, and on one that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (free_port(), silent.getsockname()[1]):
            call = [sys.executable, "-c", OUT_OF_REACH]
            env = os.environ | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_REGION": "us-east-1"}
            done = subprocess.run(call, cwd=HOUSE, env=env, capture_output=True, text=True, check=False)
            assert done.stdout.split()[:2] == ["StoreUnavailableError", "StoreUnavailableError"], done.stderr
            assert float(done.stdout.split()[2]) < 15, "two calls for the record and one for the key, two attempts each"


OUT_OF_REACH = """
import time
from handler import store
from handler.billing.keys import Keys, make
from handler.billing.ledger import Ledger
from tests.billing.test_ledger import RECORD
store.dynamodb()
start = time.perf_counter()
for call in (lambda: Keys(store.dynamodb, "Keys").find(make()), lambda: Ledger(store.dynamodb, "Usage").write(RECORD)):
    try:
        call()
    except Exception as error:
        print(type(error).__name__)
print(time.perf_counter() - start)
"""


def test_the_client_is_made_once_however_many_threads_come(ministack: MiniStack) -> None:
    store._dynamodb.cache_clear()
    with ThreadPoolExecutor(16) as threads:
        assert len({id(client) for client in threads.map(lambda _: store.dynamodb(), range(16))}) == 1


def test_a_ledger_out_of_reach_says_so(ministack: MiniStack) -> None:
    with pytest.raises(store.StoreUnavailableError):
        Ledger(store.dynamodb, "no-such-table").write(RECORD)
