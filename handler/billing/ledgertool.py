"""`python -m handler.billing.ledger`: the operator's tool for records that only the log could take."""

import argparse
import sys
from collections import Counter
from pathlib import Path

from handler import settings, store
from handler.billing import console, outbox
from handler.billing.ledger import Ledger, Outcome
from handler.billing.limits import Counters
from handler.billing.register import Register

_TOLD = {Outcome.BILLED: "written", Outcome.REPLAYED: "there already, or billed with another attempt"}

_NAMED = 50  # lines, by their numbers
_HINT = ". Run it again: what is written already is not written twice."


def main(arguments: list[str] | None = None) -> int:
    """0: every record of the log is in the ledger; 1: not all of them, with the reason on stderr; 2: a wrong call."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.file != "-" and not Path(asked.file).exists():  # which may be a pipe
        parser.error(f"{asked.file} is not there")
    done: Counter[Outcome] = Counter()
    try:
        return console.run(lambda: _replay(asked, done), _HINT)
    finally:
        told = "".join(f"; {done[outcome]} {words}" for outcome, words in _TOLD.items())
        print(f"{done.total()} records in {asked.file}{told}")  # noqa: T201


def _replay(asked: argparse.Namespace, done: Counter[Outcome]) -> int:
    config = settings.read()
    usage = console.table(asked.table, "usage_table")
    entries = console.table(asked.entries, "entries_table", "--entries")
    ledger = Ledger(store.ledger, usage, entries, window_s=config.retry_window)
    hours = "--rollups (or --no-rollups, and the hours of late records are summed by the stream alone)"
    rollups = "" if asked.no_rollups else console.table(asked.rollups, "rollups_table", hours)
    months = "--limits (or --no-limits, and late records are in no month)"
    limits = "" if asked.no_limits else console.table(asked.limits, "limits_table", months)
    register, counters = Register(store.dynamodb, rollups), Counters(store.dynamodb, limits)
    unreadable: list[int] = []
    with sys.stdin if asked.file == "-" else Path(asked.file).open(encoding="utf-8", errors="replace") as lines:
        for number, record in outbox.read(lines):
            if record is None:
                unreadable.append(number)
                continue
            outcome = ledger.settle(record)
            if rollups:
                register.late(record.account, record.work.time.timestamp())
            counters.late(record)
            done[outcome] += 1
            if sys.stderr.isatty() and done.total() % 100 == 0:
                print(f"{done.total()} records", end="\r", file=sys.stderr)  # noqa: T201
    if unreadable:
        named = ", ".join(map(str, unreadable[:_NAMED])) + (", …" if unreadable[_NAMED:] else "")
        told = f"{len(unreadable)} lines may hold a record and are cut or not as they were written: {named}"
        print(f"error: {told}", file=sys.stderr)  # noqa: T201
    return int(bool(unreadable))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m handler.billing.ledger", description="Records of the ledger.")
    calls = parser.add_subparsers(required=True)
    replay = calls.add_parser(
        "replay", help="write the records that a log holds because neither DynamoDB nor the ledger queue took them"
    )
    replay.add_argument(
        "file", metavar="LOGFILE", help="a log's lines as they were written, or with a time before each; - for stdin"
    )
    replay.add_argument("--table", help="the Usage table (default: USAGE_TABLE; the stack's output UsageTable)")
    replay.add_argument("--entries", help="the Entries table (default: ENTRIES_TABLE; the stack's output EntriesTable)")
    hours = replay.add_mutually_exclusive_group()
    hours.add_argument(
        "--rollups",
        help="the Rollups table, where hours are noted that got records late (default: ROLLUPS_TABLE; the output "
        "RollupsTable)",
    )
    hours.add_argument("--no-rollups", action="store_true", help="leave that to the ledger's stream")
    months = replay.add_mutually_exclusive_group()
    months.add_argument(
        "--limits",
        help="the Limits table, whose months count what comes late (default: LIMITS_TABLE; the output LimitsTable)",
    )
    months.add_argument("--no-limits", action="store_true", help="leave months as they are")
    return parser
