"""`python -m handler.billing.ledger replay`: what only the log could take is written from there."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from handler import store
from handler.billing import ledgertool, outbox
from handler.billing.ledger import Record, Work
from handler.billing.register import Register
from tests.stack import tools
from tests.stack.ministack import Tables

CAME = datetime.now(UTC) - timedelta(hours=9)


Replay = Callable[..., tools.Done]


@pytest.fixture
def account() -> str:
    return f"acct_{uuid.uuid4().hex[:12]}"


@pytest.fixture
def lines(account: str) -> list[str]:
    """Three lost records of 1, 10 and 100 tokens."""
    works = [Work(uuid.uuid4().hex, f"{n:064x}", CAME, "http") for n in range(3)]
    return [
        outbox._line(Record(work, account, "key_1", "bge-m3", 10**n, 1, Decimal("0.01")), "emblet-Embed")
        for n, work in enumerate(works)
    ]


@pytest.fixture
def replay(tables: Tables, tmp_path: Path) -> Replay:
    def run(lines: list[str], *options: str, **settings: str) -> tools.Done:
        log = tmp_path / "lost.log"
        log.write_text("".join(f"{line}\n" for line in lines))
        named = ["--table", tables.usage, "--entries", tables.entries, *options]
        return tools.run(ledgertool.main, "replay", str(log), *named, env=settings)

    return run


def billed(tables: Tables, account: str) -> int:
    records = (item for item in tables.records() if item["pk"]["S"].startswith(f"{account}#"))
    return sum(int(item["tokens"]["N"]) for item in records)


def late(tables: Tables, account: str) -> set[int]:
    """The account's hours that are to be summed again."""
    register = Register(store.dynamodb, tables.rollups)
    return {hour for each in register.entries() if each.account == account for hour in each.late}


NEITHER = ("--no-rollups", "--no-limits")


def test_lines_that_are_cut_stop_nothing_and_are_named_by_their_numbers_alone(
    replay: Replay, tables: Tables, account: str, lines: list[str]
) -> None:
    log = [lines[0], "another line", lines[1][:300], lines[1][:100], lines[2]]
    for written in (2, 0):
        done = replay(log, *NEITHER)
        assert done.status == 1
        assert done.out.partition("; ")[2].startswith(f"{written} written; {2 - written} there already")
        assert done.err.strip().endswith("2 lines may hold a record and are cut or not as they were written: 3, 4")
        assert account not in done.err
        assert billed(tables, account) == 101
    assert replay(lines, *NEITHER).status == 0
    assert billed(tables, account) == 111


def test_a_log_of_nothing_but_broken_lines_names_some_of_them(replay: Replay, lines: list[str]) -> None:
    done = replay([lines[0][:200]] * 1000, *NEITHER)
    assert done.status == 1
    assert "1000 lines may hold a record" in done.err
    assert len(done.err) < 1000


@pytest.mark.parametrize(
    ("others", "option", "without"),
    [
        ("--no-limits", "rollups", "the hours of late records are summed by the stream alone"),
        ("--no-rollups", "limits", "late records are in no month"),
    ],
)
def test_what_late_records_belong_to_is_named_or_it_is_said_that_it_shall_stay(
    replay: Replay, tables: Tables, account: str, lines: list[str], others: str, option: str, without: str
) -> None:
    done = replay(lines, others)
    assert done.status == 1
    assert f"--{option} (or --no-{option}, and {without}), or set {option.upper()}_TABLE" in done.err
    assert billed(tables, account) == 0, "it is asked for before anything is written"


@pytest.mark.parametrize("kind", ["rollups", "limits"])
def test_a_table_is_not_both_named_and_left_alone(replay: Replay, lines: list[str], kind: str) -> None:
    assert replay(lines, *NEITHER, f"--{kind}", "T").status == 2


@pytest.mark.parametrize("named", ["by options", "by settings"])
def test_late_hours_are_noted_once_for_whatever_is_replayed(
    replay: Replay, tables: Tables, account: str, lines: list[str], named: str
) -> None:
    options = ("--rollups", tables.rollups, "--limits", tables.limits) if named == "by options" else ()
    settings = {} if options else {"ROLLUPS_TABLE": tables.rollups, "LIMITS_TABLE": tables.limits}
    assert replay(lines, *NEITHER).status == 0
    assert late(tables, account) == set()
    for _ in range(2):
        assert replay(lines, *options, **settings).status == 0, "though every record is there already"
        assert late(tables, account) == {int(CAME.timestamp()) // 3600 * 3600}
    assert billed(tables, account) == 111
