"""The function that keeps the books, under Lambda's own runtime: quick to start, without a model, deaf to HTTP."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from handler import store
from handler.billing import records
from tests.conftest import serving
from tests.doors.conftest import ENTRY, ROOT
from tests.stack.books import NOON, Books
from tests.stack.emulator import Emulator, FunctionError
from tests.stack.ministack import MiniStack, Tables
from tests.stack.queues import Queue
from tests.stack.quotas import Quota, used

HEAVY = {"numpy", "onnxruntime", "tokenizers", "fastapi", "starlette", "pydantic", "mangum", "orjson"}


@pytest.fixture(scope="module")
def tables(ministack: MiniStack) -> Tables:
    """Of its own: it reads all that there is, and other tests leave records that cannot be read."""
    return ministack.create_tables(ROOT / "template.yaml", "role")


@pytest.fixture(scope="module")
def ledger_env(ministack: MiniStack, tables: Tables) -> dict[str, str]:
    whole = serving(ministack.env, tables, Path("/nowhere")) | {"FUNCTION_ROLE": "ledger"}
    return {name: value for name, value in whole.items() if name != "KEYS_TABLE"}


@pytest.fixture(autouse=True)
def since(tables: Tables) -> None:
    """No hour has been summed in these tables, so that an event is of its last two."""
    store.dynamodb().delete_item(TableName=tables.rollups, Key={"pk": {"S": "schedule"}, "sk": {"S": "renewed"}})


@pytest.fixture(scope="module")
def ledger(ledger_env: dict[str, str]) -> Iterator[Emulator]:
    with Emulator(ENTRY, ledger_env, cwd=ROOT, memory_mb=512) as emulator:
        yield emulator


def sample(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "events" / f"{name}.json").read_text())
    return found


def run(env: dict[str, str], code: str) -> "subprocess.CompletedProcess[str]":
    call = [sys.executable, "-c", code]
    return subprocess.run(call, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_it_imports_neither_engine_nor_http_door_at_its_start_nor_later(ledger_env: dict[str, str]) -> None:
    code = f"""
import json, sys
from handler import entry
entry.handler({sample("dynamodb-stream")!r}, None)
entry.handler({sample("schedule")!r}, None)
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}} | set(sys.modules))))
"""
    done = run(ledger_env, code)
    assert done.returncode == 0, done.stderr
    imported = set(json.loads(done.stdout.splitlines()[-1]))
    assert "boto3" in imported
    assert not imported & HEAVY
    assert not {name for name in imported if name.startswith(("handler.engine", "handler.api", "handler.service"))}


def test_it_sums_what_the_stream_brings(ledger: Emulator, tables: Tables) -> None:
    books = Books(tables)
    books.write_some(30)
    assert ledger.invoke(books.event()) == {"batchItemFailures": []}
    assert books.agree()


def test_it_sums_closed_hours_again_by_the_hour(ledger: Emulator, tables: Tables) -> None:
    books, noon = Books(tables), NOON + timedelta(days=1)
    books.write(books.record(noon))
    ledger.invoke(books.event())
    books.write(books.record(noon))
    assert ledger.invoke(sample("schedule") | {"time": f"{noon:%Y-%m-%d}T13:05:00Z"}) is None
    assert books.agree()


def now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def test_it_corrects_months_by_the_hour(ledger: Emulator, tables: Tables) -> None:
    quota = Quota(tables, lambda: time.time() - 3 * 3600)
    month = f"{datetime.fromtimestamp(quota.clock(), UTC):%Y-%m}"
    quota.use(5)
    quota.count(100)
    assert ledger.invoke(sample("schedule") | {"time": now()}) is None
    assert quota.month(month=month) == quota.month(quota.owner, month) == used(5)


def test_a_record_that_it_drains_late_is_in_the_ledger_and_in_its_month(ledger: Emulator, tables: Tables) -> None:
    quota = Quota(tables, lambda: time.time() - 3 * 3600)
    month = f"{datetime.fromtimestamp(quota.clock(), UTC):%Y-%m}"
    quota.count(1)
    queue = Queue()
    queue.send(records.dumps(quota.record(7)))
    assert queue.deliver(lambda event, _: ledger.invoke(event)) == 1
    assert quota.month(month=month) == quota.month(quota.owner, month) == used(8)
    assert any(each["pk"]["S"].startswith(f"{quota.account}#") for each in tables.records())


def test_the_sample_event_is_one_of_the_tables_own_stream(ledger: Emulator, tables: Tables) -> None:
    event = sample("dynamodb-stream")
    [change] = [record["dynamodb"] for record in event["Records"]]
    assert ledger.invoke(event) == {"batchItemFailures": []}, "its record is not there, and there is nothing to sum"
    assert (change["StreamViewType"], set(change["Keys"])) == ("KEYS_ONLY", {"pk", "sk"})


@pytest.mark.parametrize(
    ("name", "kind"), [("function-url", "function URL"), ("function-url-models", "function URL"), ("s3", "S3")]
)
def test_other_kinds_of_event_are_refused_by_their_name(ledger: Emulator, name: str, kind: str) -> None:
    with pytest.raises(FunctionError) as refused:
        ledger.invoke(sample(name))
    assert refused.value.error_type == "UnsupportedEventError"
    assert f"does not take {kind} events." in refused.value.error_message


def test_its_tables_are_asked_for_at_its_start(ledger_env: dict[str, str]) -> None:
    done = run(ledger_env | {"USAGE_TABLE": "", "ROLLUPS_TABLE": ""}, "import handler.entry")
    assert "USAGE_TABLE, ROLLUPS_TABLE: not set" in done.stderr


def test_a_role_that_there_is_not_is_refused(ledger_env: dict[str, str]) -> None:
    done = run(ledger_env | {"FUNCTION_ROLE": "sing"}, "import handler.entry")
    assert "FUNCTION_ROLE=sing: expected one of embed, work, ledger" in done.stderr


def test_it_starts_in_a_fraction_of_a_models_time(ledger_env: dict[str, str], measured: Callable[[str], None]) -> None:
    def seconds() -> float:
        code = "import time; start = time.perf_counter(); import handler.entry; print(time.perf_counter() - start)"
        return float(run(ledger_env, code).stdout.splitlines()[-1])

    fastest = min(seconds() for _ in range(3))
    measured(f"init of the ledger's function {fastest * 1e3:.0f} ms (the fastest of 3, most of it boto3's)")
    assert fastest < 5


def test_a_minutes_sums_cost_little(tables: Tables, measured: Callable[[str], None]) -> None:
    """CPU decides, because memory is what Lambda gives it by: 512 MB are 0.29 of a vCPU."""
    books = Books(tables)
    books.write_some(20, minutes=1)
    books.stream(books.event(), None)
    start, wall = time.process_time(), time.perf_counter()
    for _ in range(10):
        books.stream(books.event(), None)
    cpu, wall = (time.process_time() - start) / 10, (time.perf_counter() - wall) / 10
    measured(f"a dirty minute costs {cpu * 1e3:.0f} ms of CPU, {wall * 1e3:.0f} ms on MiniStack")
    assert cpu < 1
