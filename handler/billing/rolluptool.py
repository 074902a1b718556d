"""`python -m handler.billing.rollups`: the operator's tool that holds rollups against the ledger, and mends them."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

from handler import settings
from handler.billing import console, known
from handler.billing.keytable import KeyTable
from handler.billing.minutes import Minutes
from handler.billing.recount import Difference, Recount
from handler.billing.rollups import Rollups

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

_ATTEMPTS = 10  # of a read that DynamoDB refuses: here nobody waits, and a month takes many
_PROGRESS_S = 2.0


def main(arguments: list[str] | None = None) -> int:
    """0: rollups are what the ledger says; 1: they are not, or could not be read; 2: the call's words are off."""
    asked = _parser().parse_args(arguments)
    return console.run(lambda: _check(asked))


def _check(asked: argparse.Namespace) -> int:
    config = settings.read()
    settings.required(config, "usage_table", "rollups_table", "keys_table")
    if asked.first > asked.last:
        raise ValueError(f"--from {asked.first} is after --to {asked.last}")
    with ThreadPoolExecutor(16) as threads:
        rollups = Rollups(_client, config.rollups_table)
        recount = Recount(Minutes(_client, config.usage_table, threads), rollups)
        with console.on(config.keys_table):
            there = known.accounts(KeyTable(_client, config.keys_table), rollups.accounts())
        accounts = known.chosen(asked.account, there)
        found = list(_differences(recount, accounts, asked))
    left = [each for each in found if not each.mended]
    print(f"{len(found)} differences, {len(found) - len(left)} mended")  # noqa: T201
    if any(each.what in ("ahead", "wrong") for each in left):
        print(_NEVER, file=sys.stderr)  # noqa: T201
    return 1 if left else 0


_WORDS = (
    "missing: these records have no rollup; behind: it sums fewer than there are; rebuild mends both. "
    "ahead: it sums more than there are; wrong: as many, to something else; neither comes about by itself."
)
_NEVER = (
    "error: a rollup that is ahead of the ledger, or wrong about as many records, means that records were changed or\n"
    "deleted, or rollups written by another hand. Nothing replaces it: find out which, delete its row, and rebuild."
)


def _differences(recount: Recount, accounts: list[str], asked: argparse.Namespace) -> Iterator[Difference]:
    """Each is printed as it is found; how far the work has come goes to stderr, every other second."""
    days = [asked.first + timedelta(days=number) for number in range((asked.last - asked.first).days + 1)]
    told = time.monotonic()
    for number, (account, day) in enumerate((account, day) for account in accounts for day in days):
        if time.monotonic() - told > _PROGRESS_S:
            told = time.monotonic()
            print(f"{number} of {len(accounts) * len(days)} days, {account} {day} is next", file=sys.stderr)  # noqa: T201
        midnight = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
        for each in recount.day(account, midnight, mend=asked.mend):
            print(_told(each), flush=True)  # noqa: T201
            yield each


def _told(each: Difference) -> str:
    held, right = (bucket.n if bucket else 0 for bucket in (each.held, each.right))
    when = f"{datetime.fromtimestamp(each.start, UTC):%Y-%m-%dT%H:%MZ}"
    mended = "\tmended" if each.mended else ""
    return f"{each.account}\t{each.width}\t{when}\t{each.what}\t{held} of {right} records{mended}"


@cache
def _client() -> "DynamoDBClient":
    import boto3
    from botocore.config import Config

    patient = Config(retries={"mode": "standard", "total_max_attempts": _ATTEMPTS}, max_pool_connections=16)
    return boto3.client("dynamodb", region_name=settings.read().aws_region or None, config=patient)


def _parser() -> argparse.ArgumentParser:
    stretch = argparse.ArgumentParser(add_help=False)
    stretch.add_argument("--account", help="default: all that have keys or rollups")
    dates: tuple[tuple[str, str, str], ...] = (("--from", "first", "first"), ("--to", "last", "last"))
    for option, dest, which in dates:
        about = f"the {which} day (UTC), such as 2026-11-01"
        stretch.add_argument(option, dest=dest, type=_day, required=True, metavar="DATE", help=about)
    parser = argparse.ArgumentParser(
        prog="python -m handler.billing.rollups",
        description="Rollups and the ledger they are made of (tables: USAGE_TABLE, ROLLUPS_TABLE, KEYS_TABLE).",
    )
    calls = parser.add_subparsers(required=True)
    check = calls.add_parser("check", parents=[stretch], help="list what is not as the ledger says", epilog=_WORDS)
    check.set_defaults(mend=False)
    rebuild = calls.add_parser(
        "rebuild", parents=[stretch], help="the same, and set what is missing or behind", epilog=_WORDS
    )
    rebuild.set_defaults(mend=True)
    return parser


_day: Callable[[str], date] = date.fromisoformat
