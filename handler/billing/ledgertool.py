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

_HINT = ". Run it again: what is written already is not written twice."


def main(arguments: list[str] | None = None) -> int:
    """0: every record of the log is in the ledger; 1: not all of them, with the reason on stderr; 2: a wrong call."""
    asked = _parser().parse_args(arguments)
    done: Counter[Outcome] = Counter()
    try:
        return console.run(
            lambda: _replay(asked, done), ". Run it again: what is written already is not written twice."
        )
    finally:
        told = "".join(f"; {done[outcome]} {words}" for outcome, words in _TOLD.items())
        print(f"{done.total()} records in {asked.file}{told}")  # noqa: T201


def _replay(asked: argparse.Namespace, done: Counter[Outcome]) -> int:
    config = settings.read()
    usage = console.table(asked.table, "usage_table")
    entries = console.table(asked.entries, "entries_table", "--entries")
    ledger = Ledger(store.ledger, usage, entries, window_s=config.retry_window)
    counters = Counters(store.dynamodb, asked.limits or config.limits_table)
    with sys.stdin if asked.file == "-" else Path(asked.file).open(encoding="utf-8", errors="replace") as lines:
        for record in outbox.read(lines):
            outcome = ledger.settle(record)
            if config.rollups_table:
                Register(store.dynamodb, config.rollups_table).late(record.account, record.work.time.timestamp())
            counters.late(record)
            done[outcome] += 1
            if sys.stderr.isatty() and done.total() % 100 == 0:
                print(f"{done.total()} records", end="\r", file=sys.stderr)  # noqa: T201
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m handler.billing.ledger", description="Records of the ledger.")
    calls = parser.add_subparsers(required=True)
    replay = calls.add_parser(
        "replay", help="write the records that a log holds because neither DynamoDB nor the ledger queue took them"
    )
    replay.add_argument("file", metavar="LOGFILE", help="plain lines, or Lambda's JSON log format; - for stdin")
    replay.add_argument("--table", help="the Usage table (default: USAGE_TABLE; the stack's output UsageTable)")
    replay.add_argument("--entries", help="the Entries table (default: ENTRIES_TABLE; the stack's output EntriesTable)")
    replay.add_argument(
        "--limits",
        help="the Limits table, whose months count what comes late (default: LIMITS_TABLE; the output LimitsTable)",
    )
    return parser
