"""The log is read back where no store took a record: nothing that a caller can have in it may become one."""

import json
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from handler.billing import outbox
from handler.billing.ledger import Record, Work
from tests.doors.conftest import ENTRY, ROOT
from tests.stack.frontdoor import FrontDoor
from tests.stack.ministack import Tables
from tests.stack.server import PlainServer


@pytest.fixture(scope="module", params=["function", "plain"])
def door(
    request: pytest.FixtureRequest, service_env: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FrontDoor | PlainServer]:
    """Both doors with a log of their own, the function's in the format that the template gives it."""
    if request.param == "function":
        with FrontDoor(ENTRY, {**service_env, "AWS_LAMBDA_LOG_FORMAT": "JSON"}, cwd=ROOT, size=1) as function:
            yield function
    else:
        with PlainServer(service_env, ROOT, tmp_path_factory.mktemp("forged") / "log") as plain:
            yield plain


@pytest.fixture
def account() -> str:
    """Short: a path is cut in the log."""
    return f"a{uuid.uuid4().hex[:8]}"


@pytest.fixture
def forgeries(account: str) -> list[str]:
    """What a caller would have replayed: a record at its shortest, and the service's own line."""
    work = Work("x", "a" * 16, datetime(2026, 11, 24, 12, tzinfo=UTC), "http")
    line = outbox._line(Record(work, account, "k", "m", 9999, 1, Decimal(9)), "f")
    short = json.dumps({"lost_record": json.loads(line)["lost_record"]}, separators=(",", ":"))
    wrapped = json.dumps({"message": line}, separators=(",", ":"))
    return [short, line, wrapped, f"2026-11-24T12:00:00Z {line}", f"\n{line}\n", f"\r{short}\r", f"\u2028{line}\u2028"]


def replay(log: Path, tables: Tables, env: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    call = [sys.executable, "-m", "handler.billing.ledger", "replay", str(log), "--table", tables.usage]
    call += ["--no-rollups", "--no-limits"]
    return subprocess.run(call, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_what_callers_have_put_into_a_log_is_replayed_as_no_record(
    door: FrontDoor | PlainServer,
    forgeries: list[str],
    account: str,
    tables: Tables,
    service_env: dict[str, str],
    tmp_path: Path,
) -> None:
    for forged in forgeries:
        header = forged.replace("\n", "\x85").replace("\r", " ").replace("\u2028", "\x85").strip().encode("latin-1")
        for url, name in (
            (f"/{quote(forged)}", b"a"),
            (f"/{quote(quote(forged))}", b"a"),
            ("/health", header),
            ("/v1/models", header),
        ):
            httpx.get(door.url + url, headers=[(b"x-client-request-id", name)], timeout=60)
    lines = door.log.splitlines()
    grepped = [line for line in lines if "lost_record" in line]
    assert len(grepped) > 4, "the log names what was asked for, as far as it is shown"
    assert not any(re.search(r"lost_record\\*[\"']", line) for line in grepped)
    log = tmp_path / "log"
    for text in (grepped, lines):
        log.write_text("\n".join(text))
        done = replay(log, tables, service_env)
        assert done.stdout.startswith("0 records in"), done.stdout
        assert (done.returncode, done.stderr) == (0, "")
    assert not [item for item in tables.records() if item["pk"]["S"].startswith(f"{account}#")]


def test_a_path_and_a_clients_id_are_logged_without_anything_that_could_be_structure(
    door: FrontDoor | PlainServer,
) -> None:
    mark = uuid.uuid4().hex
    names = [(b"x-client-request-id", b"order 77/\"{[('\\," + mark.encode())]
    httpx.get(f"{door.url}/v1/{mark}/%22%7b%27%5c%0a%e2%9c%93x%25", headers=names, timeout=60)
    deadline = time.monotonic() + 10  # the line is written once the answer has left
    while f"/v1/{mark}" not in door.log and time.monotonic() < deadline:
        time.sleep(0.05)
    [line] = [line for line in door.log.splitlines() if f"/v1/{mark}" in line]
    assert f"GET '/v1/{mark}/%22%7B%27%5C%0A%E2%9C%93x%25' 404" in line
    assert f"client's id 'order_77{8 * '_'}{mark}'" in line
