"""`python -m handler.billing.reports`: the operator's tool for invoices, and for the ledger's export."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from handler import settings, store
from handler.billing import console, known
from handler.billing.buckets import WIDTHS, Bucket, Sums, merged
from handler.billing.exports import Export, Part, Place
from handler.billing.invoices import FORMATS, Invoice, differences, total
from handler.billing.keytable import KeyTable
from handler.billing.minutes import Minutes
from handler.billing.months import SETTLED_S, Month
from handler.billing.rollups import Rollups
from handler.contract.pages import plain
from handler.settings import Settings

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

_PROGRAM = "python -m handler.billing.reports"
_ABOUT = (
    "What each account owes for a month, by key, model and line item; USD are exact. It is summed from the ledger, and "
    "each day that has been over for an hour is held against the rollups: exit status 1 where they differ. "
    f"`{_PROGRAM} export` copies the month's records to S3. Tables: USAGE_TABLE, ROLLUPS_TABLE, KEYS_TABLE."
)
_DAY = WIDTHS["1d"]
_AT_ONCE = 16  # of the ledger's partitions
_EVERY_S = 2.0  # between two lines of progress


def main(arguments: list[str] | None = None) -> int:
    """0: done; 1: refused, or ledger and rollups differ, as stderr says; 2: the call's words are off."""
    words = sys.argv[1:] if arguments is None else arguments
    exporting = words[:1] == ["export"]
    asked = _export_parser().parse_args(words[1:]) if exporting else _parser().parse_args(words)

    def work() -> int:
        config, now = settings.read(), time.time()
        settings.required(config, "usage_table", "rollups_table", "keys_table")
        if not asked.month.begun(now):
            raise ValueError(f"{asked.month} has not begun")
        books = _Books(config, asked.account, now)
        status = _export(books, asked) if exporting else _invoices(books, asked)
        if note := asked.month.note(now):
            print(f"note: {note}", file=sys.stderr)  # noqa: T201
        return status

    return console.run(work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=_ABOUT, parents=[_month()])
    parser.add_argument("--format", choices=FORMATS, default="table", help="default: table; csv has no totals")
    parser.add_argument(
        "--from",
        dest="source",
        choices=("ledger", "rollups"),
        default="ledger",
        help="rollups: read these alone, which takes one query an account",
    )
    return parser


def _export_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{_PROGRAM} export",
        parents=[_month()],
        description="Copy a month's records to S3 as JSON lines: MONTH/ACCOUNT/DAY.jsonl, and MONTH/manifest.json once "
        "all of them are there and the month is over. The same records make the same objects, so it may be run again.",
    )
    parser.add_argument("--to", required=True, type=_argument(Place.parse), metavar="s3://BUCKET/PREFIX/")
    parser.add_argument("--resume", action="store_true", help="leave days that are there already, from after their end")
    return parser


def _month() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--month", required=True, type=_argument(Month.parse), metavar="YYYY-MM", help="of UTC")
    parser.add_argument("--account", help="only this one; default: all that have rollups or keys")
    return parser


def _invoices(books: "_Books", asked: argparse.Namespace) -> int:
    invoices, differ = [], False
    for account in books.accounts():
        if asked.source == "rollups":
            days = books.rolled(account, asked.month)
        else:
            days = books.recorded(account, asked.month)
            for difference in books.differences(account, asked.month, days):
                differ = True
                print(f"difference: {difference}", file=sys.stderr)  # noqa: T201
        invoice = Invoice.of(account, asked.month, days)
        if invoice.lines:
            invoices.append(invoice)
    sys.stdout.write(FORMATS[asked.format](asked.month, invoices))
    books.progress.done(f"{asked.month}: {len(invoices)} accounts", total(invoices))
    return int(differ)


def _export(books: "_Books", asked: argparse.Namespace) -> int:
    export = Export(books.client, books.usage_table, store.s3(), asked.to, asked.month, resume=asked.resume)
    parts: list[Part] = []
    for account in books.accounts():
        for part in export.account(account):
            parts.append(part)
            books.progress.add(account, part.records)
    if asked.month.over(books.now):
        whole = export.close(parts, asked.account)
        where = f"s3://{asked.to.bucket}/{whole.key}"
    else:
        whole = export.sum(parts, asked.account)
        where = f"{asked.month} so far, without a manifest"
    books.progress.done(f"{where}: {len(parts)} objects, {whole.records} records", whole.used)
    return 0


class _Books:
    """The tables that the settings name, read with more patience than a request has; `now` in Unix seconds."""

    def __init__(self, config: Settings, account: str | None, now: float) -> None:
        import boto3
        from botocore.config import Config

        self._account, self.now, self.usage_table = account, now, config.usage_table
        patient = Config(retries={"mode": "standard", "total_max_attempts": 10}, max_pool_connections=_AT_ONCE)
        self.client: DynamoDBClient = boto3.client("dynamodb", region_name=config.aws_region or None, config=patient)
        self.progress = _Progress()
        self._keys_table = config.keys_table
        self._rollups = Rollups(lambda: self.client, config.rollups_table)

    def accounts(self) -> list[str]:
        """The one asked for, or all. ValueError for one that is not known."""
        with console.on(self._keys_table):
            there = known.accounts(KeyTable(lambda: self.client, self._keys_table), self._rollups.accounts())
        return known.chosen(self._account, there)

    def rolled(self, account: str, month: Month) -> list[Bucket]:
        return list(self._rollups.read(account, "1d", month.start, month.end))

    def recorded(self, account: str, month: Month) -> list[Bucket]:
        """Each day of the month that has begun."""
        made = []
        with ThreadPoolExecutor(_AT_ONCE, "ledger") as threads:
            minutes = Minutes(lambda: self.client, self.usage_table, threads)
            for start in range(month.start, min(month.end, int(self.now) + 1), _DAY):
                made.append(merged(start, minutes.read(account, start, start + _DAY)))
                self.progress.add(account, made[-1].n)
        return made

    def differences(self, account: str, month: Month, recorded: list[Bucket]) -> Iterator[str]:
        """Of the days that are settled."""
        last = self.now - SETTLED_S - _DAY
        sides = (recorded, self.rolled(account, month))
        yield from differences(account, *([each for each in side if each.start <= last] for side in sides))


class _Progress:
    """Lines on stderr, none of them within two seconds of another."""

    def __init__(self) -> None:
        self._records, self._told = 0, time.monotonic()

    def add(self, account: str, records: int) -> None:
        self._records += records
        if time.monotonic() - self._told >= _EVERY_S:
            self._told = time.monotonic()
            print(f"{self._records:,} records read, now of {account} ...", file=sys.stderr)  # noqa: T201

    def done(self, what: str, used: Sums) -> None:
        told = f"{used.tokens} tokens, {used.requests} requests, {plain(used.cost)} USD"
        print(f"{what}, {told}", file=sys.stderr)  # noqa: T201


def _argument(parse: Callable[[str], T]) -> Callable[[str], T]:
    """What argparse shows as it is, instead of `invalid ... value`."""

    def checked(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked
