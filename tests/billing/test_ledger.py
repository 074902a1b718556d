import ast
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from handler import store
from handler.billing import entries, records
from handler.billing.ledger import Attempt, Identity, Ledger, Outcome, Record, Work
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
    assert ledger.write(record) is Outcome.BILLED
    assert ledger.write(replace(record, tokens=9_999)) is Outcome.REPLAYED
    item = store.dynamodb().get_item(TableName=tables.usage, Key=record.key(), ConsistentRead=True)["Item"]
    assert item == record.item()
    assert (item["tokens"], item["requests"], item["usd_per_mtok"]) == ({"N": "5"}, {"N": "1"}, {"N": "0.01"})


def size(item: dict[str, Any]) -> int:
    """By DynamoDB's rule of item sizes: names and values in UTF-8."""
    return sum(len(name) + len(next(iter(value.values()))) for name, value in item.items())


def test_the_longest_record_is_one_write_unit_and_so_are_its_excuse_and_its_entry(tables: Tables) -> None:
    attempted = replace(WORK, hash="a" * 64, attempt=Attempt(999, 600.0))
    longest = Record(
        attempted,
        account="x" * 64,
        key_id=f"key_{'f' * 16}",
        model=f"sentence-transformers/{'m' * 96}",
        tokens=300_000,
        requests=10**9,
        price=Decimal("999999999.123456789012"),
    )
    named = replace(longest, work=replace(WORK, identity=Identity("message", "b" * 64, "c" * 64, 45 * 86400)))
    items = [longest.item(), named.item(), named.excuse(longest.item(), 999), entries.item(named)]
    assert max(map(size, items)) < 1024
    for item, table in zip(items, [tables.usage] * 3 + [tables.entries], strict=True):
        done = store.dynamodb().put_item(TableName=table, Item=item, ReturnConsumedCapacity="TOTAL")
        assert done["ConsumedCapacity"]["CapacityUnits"] == 1


def test_no_other_module_writes_to_a_table_than_the_one_that_carries_the_condition() -> None:
    """A module that puts into a table of its own is named here; the ledger's is in one place."""
    writing = {
        "put_item",
        "transact_write_items",
        "batch_write_item",
        "batch_writer",
        "execute_statement",
        "execute_transaction",
    }
    found = {
        path.relative_to(HOUSE).as_posix(): sorted(calls)
        for path in (HOUSE / "handler").rglob("*.py")
        if (calls := names(path) & writing)
    }
    assert found == {
        "handler/billing/puts.py": ["put_item", "transact_write_items"],
        "handler/billing/keytable.py": ["put_item", "transact_write_items"],
        "handler/billing/prices.py": ["put_item"],
        "handler/billing/register.py": ["put_item"],
        "handler/billing/rollups.py": ["put_item"],
        "handler/batches/rows.py": ["put_item", "transact_write_items"],
    }
    puts = (HOUSE / "handler/billing/puts.py").read_text()
    assert puts.count("ConditionExpression") == 3 == puts.count("ReturnValuesOnConditionCheckFailure")


def names(path: Path) -> set[str]:
    return {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}


def test_nothing_updates_or_deletes_a_record() -> None:
    for module in ("puts", "records", "retries", "entries", "ledger", "outbox", "ledgertool"):
        path = HOUSE / "handler/billing" / f"{module}.py"
        assert not names(path) & {"update_item", "delete_item"}, module


@pytest.mark.parametrize(
    "work",
    [WORK, replace(WORK, attempt=Attempt(2, 60.0)), replace(WORK, identity=Identity("http", "b" * 64, "c" * 64, 60))],
)
def test_a_record_is_the_same_after_its_way_through_the_queue(work: Work) -> None:
    record = replace(RECORD, work=work)
    assert records.loads(records.dumps(record)) == record


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"work": {}}', records.dumps(RECORD).replace("tokens", "tolkiens")]
)
def test_what_is_no_record_is_not_taken_for_one(text: str) -> None:
    with pytest.raises(ValueError, match="no record of the ledger"):
        records.loads(text)


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
    assert [ledger.write(RECORD) for _ in range(3)] == [Outcome.BILLED, Outcome.REPLAYED, Outcome.REPLAYED]
    assert client.scan(TableName="Usage")["Items"] == [RECORD.item()]
    assert "amazonaws.com" in client.meta.endpoint_url


@pytest.mark.parametrize("times", [1, 2])
def test_a_write_whose_answers_are_lost_counts_as_written(tables: Tables, times: int) -> None:
    """Attempts reach DynamoDB, and their answers are lost on the way: one of them, or both."""
    record = replace(RECORD, account=f"acct_lost_{times}")
    client = faults.client("PutItem", times, code="InternalServerError", status=500, done=True, attempts=1)
    assert Ledger(lambda: client, tables.usage).write(record) is Outcome.BILLED
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
store.dynamodb(), store.ledger()
start = time.perf_counter()
for call in (lambda: Keys(store.dynamodb, "Keys").find(make()), lambda: Ledger(store.ledger, "Usage").write(RECORD)):
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
