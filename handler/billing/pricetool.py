"""`python -m handler.billing.prices`: the operator's tool for prices, which begin at a time and are never rewritten."""

import argparse
import sys
from datetime import datetime
from decimal import Decimal

from handler import settings, store
from handler.billing import console, known
from handler.billing.accounts import ACCOUNT
from handler.billing.keytable import KeyTable
from handler.billing.prices import AMOUNT, DECIMALS, LEAD_S, LISTED, Price, Prices, Row, rfc3339


def main(arguments: list[str] | None = None) -> int:
    """0: done; 1: refused, with the reason on stderr; 2: the call's words are off."""
    asked = _parser().parse_args(arguments)

    def work() -> int:
        name = console.table(asked.table, "prices_table")
        with console.on(name):
            asked.call(Prices(store.dynamodb, name, {}), asked)
        return 0

    return console.run(work)


def _parser() -> argparse.ArgumentParser:
    table = argparse.ArgumentParser(add_help=False)
    table.add_argument("--table", help="the Prices table (default: PRICES_TABLE; the stack's output PricesTable)")
    whose = argparse.ArgumentParser(add_help=False)
    whose.add_argument("model", help="its id, as records have it; no alias")
    whose.add_argument(
        "--account",
        help="whose own price (with KEYS_TABLE set, it must be known); without it, the list's",
        type=_account,
        default=LISTED,
    )
    begins = argparse.ArgumentParser(add_help=False)
    begins.add_argument(
        "--at",
        type=_time,
        metavar="TIME",
        help=f"when it begins, such as 2027-01-01T00:00:00Z, {LEAD_S // 60} minutes from now or later (default: then)",
    )
    parser = argparse.ArgumentParser(
        prog="python -m handler.billing.prices", description="Prices of a deployment, in USD per million input tokens."
    )
    calls = parser.add_subparsers(required=True)
    shown = calls.add_parser("list", parents=[table], help="all prices, past and to come")
    shown.set_defaults(call=_list)
    change = calls.add_parser("set", parents=[table, whose, begins], help="a price from a time on")
    change.add_argument("--usd", type=_amount, required=True, metavar="N", help="of a million input tokens")
    batch = change.add_mutually_exclusive_group(required=True)
    batch.add_argument("--batch-usd", type=_amount, metavar="N", help="of a million tokens of a batch")
    batch.add_argument("--batch-factor", type=_amount, metavar="N", help="the same as a part of --usd, such as 0.5")
    change.add_argument(
        "--new", action="store_true", help="the model has no price in the table yet, and is to have one"
    )
    change.set_defaults(call=_set)
    end = calls.add_parser(
        "end", parents=[table, whose, begins], help="an account's own price ends; the list's is next"
    )
    end.set_defaults(call=_end)
    back = calls.add_parser("withdraw", parents=[table, whose], help="take back what is still to come")
    back.add_argument(
        "--at", type=_time, metavar="TIME", required=True, help="when it would begin, as `list` prints it"
    )
    back.set_defaults(call=_withdraw)
    return parser


def _list(prices: Prices, _asked: argparse.Namespace) -> None:
    print("model\taccount\teffective_at\tUSD per million\tof a batch")  # noqa: T201
    rows = list(prices.list())
    for row in rows:
        amounts = ("as listed", "")
        if row.price:
            amounts = (f"{row.price.input_per_mtok:f}", f"{row.price.batch_input_per_mtok:f}")
        print("\t".join((row.model, row.account, rfc3339(row.effective_at), *amounts)))  # noqa: T201
    if not rows:
        print("no price is in the table: those of the settings hold", file=sys.stderr)  # noqa: T201


def _set(prices: Prices, asked: argparse.Namespace) -> None:
    batch, part = asked.batch_usd, ""
    if batch is None:
        if asked.batch_factor > 1:
            raise ValueError("--batch-factor is a part of --usd, 1 at most; --batch-usd names a price that is more")
        batch, part = _exact(asked.usd * asked.batch_factor), f" ({asked.batch_factor:f} of it)"
    _must_be_meant(prices, asked)
    since = asked.at or prices.earliest()
    row = Row(asked.model, asked.account, since, Price(since, asked.usd, batch))
    prices.set(row)
    print(  # noqa: T201
        f"{_named(row)}: {asked.usd:f} USD per million tokens, {batch:f} of a batch{part}, from {rfc3339(since)} on."
    )


def _must_be_meant(prices: Prices, asked: argparse.Namespace) -> None:
    """ValueError for a model that nothing is known of, or an account: a price of what is misspelt prices nothing."""
    priced = {row.model for row in prices.list()}
    if asked.model not in priced and not asked.new:
        raise ValueError(
            f"{asked.model} has no price in the table yet ({', '.join(sorted(priced)) or 'nor has any model'}); "
            "with --new it gets its first"
        )
    keys = settings.read().keys_table
    if asked.account != LISTED and keys:
        known.chosen(asked.account, known.accounts(KeyTable(store.dynamodb, keys)))


def _end(prices: Prices, asked: argparse.Namespace) -> None:
    if asked.account == LISTED:
        raise ValueError("the list's price cannot end: set another; --account names whose own price ends")
    if not any((each.model, each.account) == (asked.model, asked.account) for each in prices.list()):
        raise ValueError(f"{asked.account} has no price of its own for {asked.model}; `list` shows who has")
    row = Row(asked.model, asked.account, asked.at or prices.earliest(), None)
    prices.set(row)
    print(f"{_named(row)}: as listed, from {rfc3339(row.effective_at)} on.")  # noqa: T201


def _withdraw(prices: Prices, asked: argparse.Namespace) -> None:
    row = Row(asked.model, asked.account, asked.at, None)
    if not prices.withdraw(row):
        raise ValueError(f"{_named(row)}: nothing begins at {rfc3339(asked.at)}; `list` shows what does")
    print(f"{_named(row)}: nothing changes at {rfc3339(asked.at)}.")  # noqa: T201


def _named(row: Row) -> str:
    return row.model if row.account == LISTED else f"{row.model} for {row.account}"


def _account(text: str) -> str:
    if not ACCOUNT.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected 1 to 64 letters, digits, '_', '.' or '-'")
    return text


def _amount(text: str) -> Decimal:
    if not AMOUNT.fullmatch(text) or not Decimal(text):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a decimal number above 0, at most 9 digits and {DECIMALS} decimals, such as 0.01"
        )
    return Decimal(text)


def _exact(usd: Decimal) -> Decimal:
    if not usd or not AMOUNT.fullmatch(f"{usd.normalize():f}"):
        raise ValueError(f"a batch's price of {usd:f}: expected at most {DECIMALS} decimals; --batch-usd names one")
    return usd.normalize()


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = datetime.min
    if moment.tzinfo is None or moment.microsecond:
        raise argparse.ArgumentTypeError(f"{text!r}: expected whole seconds and a zone, such as 2027-01-01T00:00:00Z")
    return moment
