"""`python -m handler.billing.rollups`, as an operator calls it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack.books import Books
from tests.stack.ministack import MiniStack, Tables

HOUSE = Path(__file__).resolve().parents[2]
DAYS = ("--from", "2026-11-22", "--to", "2026-11-24")


class Tool:
    def __init__(self, env: dict[str, str], account: str) -> None:
        self._env, self._account = env, account

    def __call__(self, *words: str) -> "subprocess.CompletedProcess[str]":
        call = [sys.executable, "-m", "handler.billing.rollups", *words]
        return subprocess.run(call, cwd=HOUSE, env=self._env, capture_output=True, text=True, check=False)

    def of_account(self, call: str) -> "subprocess.CompletedProcess[str]":
        return self(call, "--account", self._account, *DAYS)


@pytest.fixture
def books(tables: Tables) -> Books:
    return Books(tables)


@pytest.fixture
def tool(books: Books, ministack: MiniStack, tables: Tables) -> Tool:
    tables.create_key(books.account, "inference")
    names = {"USAGE_TABLE": tables.usage, "ROLLUPS_TABLE": tables.rollups, "KEYS_TABLE": tables.keys}
    return Tool({"PATH": os.environ["PATH"]} | ministack.env | names, books.account)


def test_a_check_lists_what_is_missing_and_a_rebuild_mends_it(books: Books, tool: Tool) -> None:
    books.write()
    [row] = [bucket.start for bucket in books.right("1m")]
    assert row == 1795435200
    missing = tool.of_account("check")
    assert missing.returncode == 1
    assert missing.stdout.splitlines() == [
        f"{books.account}\t1m\t2026-11-23T12:00Z\tmissing\t0 of 1 records",
        f"{books.account}\t1h\t2026-11-23T12:00Z\tmissing\t0 of 1 records",
        f"{books.account}\t1d\t2026-11-23T00:00Z\tmissing\t0 of 1 records",
        "3 differences, 0 mended",
    ]
    assert books.held("1d") == []
    rebuilt = tool.of_account("rebuild")
    assert (rebuilt.returncode, rebuilt.stdout.splitlines()[-1]) == (0, "3 differences, 3 mended")
    assert books.agree()
    right = tool.of_account("check")
    assert (right.returncode, right.stdout, right.stderr) == (0, "0 differences, 0 mended\n", "")


def test_a_rollup_ahead_of_the_ledger_is_told_and_never_changed(books: Books, tables: Tables, tool: Tool) -> None:
    other = Books(tables)
    other.write_some(5, minutes=1)
    books.rollups.set(books.account, "1m", other.right("1m")[0])
    before = books.held("1m")
    done = tool.of_account("rebuild")
    assert done.returncode == 1
    assert f"{books.account}\t1m\t2026-11-23T12:00Z\tahead\t5 of 0 records" in done.stdout
    assert "ahead of the ledger" in done.stderr
    assert books.held("1m") == before


def test_without_an_account_it_goes_through_all_that_have_keys_or_rollups(
    books: Books, tool: Tool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tables: Tables
) -> None:
    from handler import settings
    from handler.billing import known, rolluptool

    other = Books(tables)
    monkeypatch.setenv("USAGE_TABLE", tables.usage)
    monkeypatch.setenv("ROLLUPS_TABLE", tables.rollups)
    tables.create_key(other.account, "inference")
    ours, accounts = {books.account, other.account}, known.accounts
    monkeypatch.setattr(known, "accounts", lambda *of: [each for each in accounts(*of) if each in ours])
    monkeypatch.setenv("KEYS_TABLE", tables.keys)
    monkeypatch.setattr(rolluptool, "_PROGRESS_S", 0)
    settings.read.cache_clear()
    for each in (books, other):
        each.write()
    try:
        assert rolluptool.main(["rebuild", *DAYS]) == 0
    finally:
        settings.read.cache_clear()
    printed = capsys.readouterr()
    assert "6 differences, 6 mended" in printed.out
    assert printed.err.splitlines()[4] == f"4 of 6 days, {max(ours)} 2026-11-23 is next"
    assert books.agree()
    assert other.agree()


def test_what_is_missing_of_the_call_or_of_the_settings_is_named(tool: Tool) -> None:
    assert "--from" in tool("check").stderr
    assert tool("check").returncode == 2
    tool._env = {name: value for name, value in tool._env.items() if not name.endswith("_TABLE")}
    done = tool.of_account("check")
    assert (done.returncode, "USAGE_TABLE, ROLLUPS_TABLE, KEYS_TABLE: not set" in done.stderr) == (1, True)


def test_an_account_that_nobody_has_and_a_stretch_without_days_are_errors_and_no_agreement(tool: Tool) -> None:
    unknown = tool("check", "--account", "typo", *DAYS)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr.startswith("error: no account typo: it has neither keys nor rollups")
    backwards = tool("check", "--from", "2026-11-30", "--to", "2026-11-01")
    assert (backwards.returncode, backwards.stdout) == (1, "")
    assert backwards.stderr == "error: --from 2026-11-30 is after --to 2026-11-01\n"


def test_a_table_out_of_reach_is_an_error_and_no_agreement(tool: Tool) -> None:
    tool._env |= {"USAGE_TABLE": "no-such-table"}
    done = tool.of_account("check")
    assert done.returncode == 1
    assert done.stderr == "error: ResourceNotFoundException on no-such-table\n"


def test_a_table_of_keys_out_of_reach_is_named(tool: Tool) -> None:
    tool._env |= {"KEYS_TABLE": "no-such-table"}
    done = tool.of_account("check")
    assert (done.returncode, "table no-such-table" in done.stderr) == (1, True)
