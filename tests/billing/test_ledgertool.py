"""`python -m handler.billing.ledger replay`: what only the log could take is written from there."""

import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from handler.billing import outbox
from handler.billing.ledger import Record, Work
from tests.conftest import HOUSE
from tests.stack.ministack import MiniStack, Tables

Replay = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def account() -> str:
    return f"acct_{uuid.uuid4().hex[:12]}"


@pytest.fixture
def lines(account: str) -> list[str]:
    """Three lost records of 1, 10 and 100 tokens."""
    works = [Work(uuid.uuid4().hex, f"{n:064x}", datetime.now(UTC), "http") for n in range(3)]
    return [
        outbox._line(Record(work, account, "key_1", "bge-m3", 10**n, 1, Decimal("0.01")), "emblet-Embed")
        for n, work in enumerate(works)
    ]


@pytest.fixture
def replay(ministack: MiniStack, tables: Tables, tmp_path: Path) -> Replay:
    def run(
        lines: list[str], *options: str, env: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        log = tmp_path / "lost.log"
        log.write_text("".join(f"{line}\n" for line in lines))
        named = ["--table", tables.usage, "--entries", tables.entries]
        call = [sys.executable, "-m", "handler.billing.ledger", "replay", str(log), *named, *options]
        return subprocess.run(
            call, cwd=HOUSE, env={**ministack.env, **(env or {})}, capture_output=True, text=True, check=False
        )

    return run


def billed(tables: Tables, account: str) -> int:
    records = (item for item in tables.records() if item["pk"]["S"].startswith(f"{account}#"))
    return sum(int(item["tokens"]["N"]) for item in records)


def test_lines_that_are_cut_stop_nothing_and_are_named_by_their_numbers_alone(
    replay: Replay, tables: Tables, account: str, lines: list[str]
) -> None:
    log = [lines[0], "another line", lines[1][:300], lines[1][:100], lines[2]]
    for written in (2, 0):
        done = replay(log, "--no-limits")
        assert done.returncode == 1
        assert done.stdout.partition("; ")[2].startswith(f"{written} written; {2 - written} there already")
        assert done.stderr.strip().endswith("2 lines may hold a record and are cut or not as they were written: 3, 4")
        assert account not in done.stderr
        assert billed(tables, account) == 101
    assert replay(lines, "--no-limits").returncode == 0
    assert billed(tables, account) == 111


def test_a_log_of_nothing_but_broken_lines_names_some_of_them(replay: Replay, lines: list[str]) -> None:
    done = replay([lines[0][:200]] * 1000, "--no-limits")
    assert done.returncode == 1
    assert "1000 lines may hold a record" in done.stderr
    assert len(done.stderr) < 1000


def test_months_are_counted_or_it_is_said_that_they_shall_not(
    replay: Replay, tables: Tables, account: str, lines: list[str]
) -> None:
    done = replay(lines)
    assert done.returncode == 1
    assert (
        "Name it with --limits (or --no-limits, and late records are in no month), or set LIMITS_TABLE" in done.stderr
    )
    assert billed(tables, account) == 0
    assert replay(lines, env={"LIMITS_TABLE": tables.limits}).returncode == 0
    assert replay(lines, "--limits", tables.limits).returncode == 0
    assert replay(lines, "--limits", tables.limits, "--no-limits").returncode == 2
    assert billed(tables, account) == 111
