"""What each account owes for a month: made of the ledger and held against the rollups, or of the rollups alone."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from handler.billing.buckets import Bucket, Group, Sums, merged
from handler.billing.months import Month
from handler.contract.pages import plain

_HEAD = ("account", "key_id", "model", "line_item", "tokens", "requests", "usd")
_NUMBERS = 3  # columns of _HEAD, the last ones
_TOTAL = "total"


@dataclass(frozen=True)
class Invoice:
    """An account's month. `lines` are exact; those without any usage are left out."""

    account: str
    lines: Mapping[Group, Sums]

    @classmethod
    def of(cls, account: str, month: Month, days: Iterable[Bucket]) -> "Invoice":
        groups = merged(month.start, days).groups
        return cls(account, {group: groups[group] for group in sorted(groups) if groups[group] != Sums()})

    @property
    def total(self) -> Sums:
        return sum(self.lines.values(), Sums())


def differences(account: str, ledger: Iterable[Bucket], rollups: Iterable[Bucket]) -> Iterator[str]:
    """A sentence for each day of which the rollups do not tell what the ledger holds."""
    ours, theirs = ({each.start: each for each in side if each.groups} for side in (ledger, rollups))
    for start in sorted(ours.keys() | theirs.keys()):
        nothing = Bucket(start, 0, {})
        mine, rolled = ours.get(start, nothing), theirs.get(start, nothing)
        if _used(mine) != _used(rolled):
            day = f"{datetime.fromtimestamp(start, UTC):%Y-%m-%d}"
            yield f"{account}, {day}: the ledger has {_told(mine.total)}, the rollups {_told(rolled.total)}"


def total(invoices: Iterable[Invoice]) -> Sums:
    return sum((invoice.total for invoice in invoices), Sums())


def as_csv(_: Month, invoices: Iterable[Invoice]) -> str:
    """A head and a row for each line, without totals; RFC 4180, but for line ends."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEAD)
    writer.writerows(row for invoice in invoices for row in _rows(invoice))
    return text.getvalue()


def as_json(month: Month, invoices: Iterable[Invoice]) -> str:
    """One object. USD are strings, whose digits no reader rounds."""
    told = list(invoices)
    accounts = [
        {
            "account": invoice.account,
            "lines": [dict(zip(_HEAD[1:], row[1:], strict=True)) for row in _rows(invoice)],
            "total": _json(invoice.total),
        }
        for invoice in told
    ]
    return json.dumps({"month": str(month), "accounts": accounts, "total": _json(total(told))}, indent=2) + "\n"


def as_table(_: Month, invoices: Iterable[Invoice]) -> str:
    """For people: columns, and a total under each account and under all."""
    told = list(invoices)
    rows: list[tuple[Any, ...]] = [_HEAD]
    for invoice in told:
        rows += [*_rows(invoice), (invoice.account, _TOTAL, "", "", *_numbers(invoice.total))]
    rows.append((_TOTAL, "", "", "", *_numbers(total(told))))
    cells = [[f"{each:,}" if isinstance(each, int) else each for each in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    texts = len(_HEAD) - _NUMBERS
    lines = (
        "  ".join(
            cell.ljust(width) if column < texts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines) + "\n"


FORMATS = {"csv": as_csv, "json": as_json, "table": as_table}


def _rows(invoice: Invoice) -> Iterator[tuple[Any, ...]]:
    for group, used in invoice.lines.items():
        yield (invoice.account, group.key_id, group.model, group.line_item, *_numbers(used))


def _numbers(used: Sums) -> tuple[int, int, str]:
    return used.tokens, used.requests, plain(used.cost)


def _json(used: Sums) -> dict[str, Any]:
    return dict(zip(_HEAD[-_NUMBERS:], _numbers(used), strict=True))


def _used(bucket: Bucket) -> dict[Group, Sums]:
    return {group: used for group, used in bucket.groups.items() if used != Sums()}


def _told(used: Sums) -> str:
    return f"{used.tokens} tokens, {used.requests} requests, {plain(used.cost)} USD"
