"""`python -m handler.billing.rollups`, as an operator calls it."""

import pytest

from handler.billing import known, rolluptool
from tests.stack import tools
from tests.stack.books import Books
from tests.stack.ministack import Tables

DAYS = ("--from", "2026-11-22", "--to", "2026-11-24")


class Tool:
    def __init__(self, settings: dict[str, str], account: str) -> None:
        self.settings, self._account = settings, account

    def __call__(self, *words: str) -> tools.Done:
        return tools.run(rolluptool.main, *words, env=self.settings)

    def of_account(self, call: str) -> tools.Done:
        return self(call, "--account", self._account, *DAYS)


@pytest.fixture
def books(tables: Tables) -> Books:
    return Books(tables)


@pytest.fixture
def tool(books: Books, tables: Tables) -> Tool:
    tables.create_key(books.account, "inference")
    names = {"USAGE_TABLE": tables.usage, "ROLLUPS_TABLE": tables.rollups, "KEYS_TABLE": tables.keys}
    return Tool(names, books.account)


def test_a_check_lists_what_is_missing_and_a_rebuild_mends_it(books: Books, tool: Tool) -> None:
    books.write()
    [row] = [bucket.start for bucket in books.right("1m")]
    assert row == 1795435200
    missing = tool.of_account("check")
    assert missing.status == 1
    assert missing.out.splitlines() == [
        f"{books.account}\t1m\t2026-11-23T12:00Z\tmissing\t0 of 1 records",
        f"{books.account}\t1h\t2026-11-23T12:00Z\tmissing\t0 of 1 records",
        f"{books.account}\t1d\t2026-11-23T00:00Z\tmissing\t0 of 1 records",
        "3 differences, 0 mended",
    ]
    assert books.held("1d") == []
    rebuilt = tool.of_account("rebuild")
    assert (rebuilt.status, rebuilt.out.splitlines()[-1]) == (0, "3 differences, 3 mended")
    assert books.agree()
    right = tool.of_account("check")
    assert (right.status, right.out, right.err) == (0, "0 differences, 0 mended\n", "")


def test_a_rollup_ahead_of_the_ledger_is_told_and_never_changed(books: Books, tables: Tables, tool: Tool) -> None:
    other = Books(tables)
    other.write_some(5, minutes=1)
    books.rollups.set(books.account, "1m", other.right("1m")[0])
    before = books.held("1m")
    done = tool.of_account("rebuild")
    assert done.status == 1
    assert f"{books.account}\t1m\t2026-11-23T12:00Z\tahead\t5 of 0 records" in done.out
    assert "ahead of the ledger" in done.err
    assert books.held("1m") == before


def test_without_an_account_it_goes_through_all_that_have_keys_or_rollups(
    books: Books, tool: Tool, monkeypatch: pytest.MonkeyPatch, tables: Tables
) -> None:
    other = Books(tables)
    tables.create_key(other.account, "inference")
    ours, accounts = {books.account, other.account}, known.accounts
    monkeypatch.setattr(known, "accounts", lambda *of: [each for each in accounts(*of) if each in ours])
    monkeypatch.setattr(rolluptool, "_PROGRESS_S", 0)
    for each in (books, other):
        each.write()
    done = tool("rebuild", *DAYS)
    assert (done.status, done.out.splitlines()[-1]) == (0, "6 differences, 6 mended")
    assert done.err.splitlines()[4] == f"4 of 6 days, {max(ours)} 2026-11-23 is next"
    assert books.agree()
    assert other.agree()


def test_what_is_missing_of_the_call_or_of_the_settings_is_named(tool: Tool) -> None:
    assert "--from" in tool("check").err
    assert tool("check").status == 2
    tool.settings.clear()
    done = tool.of_account("check")
    assert (done.status, "USAGE_TABLE, ROLLUPS_TABLE, KEYS_TABLE: not set" in done.err) == (1, True)


def test_an_account_that_nobody_has_and_a_stretch_without_days_are_errors_and_no_agreement(tool: Tool) -> None:
    unknown = tool("check", "--account", "typo", *DAYS)
    assert (unknown.status, unknown.out) == (1, "")
    assert unknown.err.startswith("error: no account typo: it has neither keys nor rollups")
    backwards = tool("check", "--from", "2026-11-30", "--to", "2026-11-01")
    assert (backwards.status, backwards.out) == (1, "")
    assert backwards.err == "error: --from 2026-11-30 is after --to 2026-11-01\n"


def test_a_table_out_of_reach_is_an_error_and_no_agreement(tool: Tool) -> None:
    tool.settings |= {"USAGE_TABLE": "no-such-table"}
    done = tool.of_account("check")
    assert done.status == 1
    assert done.err == "error: ResourceNotFoundException on no-such-table\n"


def test_a_table_of_keys_out_of_reach_is_named(tool: Tool) -> None:
    tool.settings |= {"KEYS_TABLE": "no-such-table"}
    done = tool.of_account("check")
    assert (done.status, "table no-such-table" in done.err) == (1, True)
