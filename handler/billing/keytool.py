"""`python -m handler.billing.keys`: the operator's tool for API keys, and for their limits and those of accounts."""

import argparse
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from handler import store
from handler.billing import console, known
from handler.billing.keys import FOUND_S, ROLES
from handler.billing.keytable import Key, KeyTable
from handler.contract.limits import Limits

_OPTIONS = {
    "requests_per_minute": ("--rpm", "requests per UTC minute"),
    "tokens_per_minute": ("--tpm", "tokens per UTC minute"),
    "tokens_per_month": ("--tokens-per-month", "tokens per UTC month, a quota"),
    "usd_per_month": ("--usd-per-month", "USD per UTC month, a quota in money"),
}
_USD = re.compile(r"\d{1,9}(\.\d{1,12})?", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def main(arguments: list[str] | None = None) -> int:
    """0: done; 1: refused, with the reason on stderr; 2: the call's words are off."""
    asked = _parser().parse_args(arguments)

    def work() -> int:
        name = console.table(asked.table, "keys_table")
        with console.on(name):
            asked.call(KeyTable(store.dynamodb, name), asked)
        return 0

    return console.run(work)


def _parser() -> argparse.ArgumentParser:
    table = argparse.ArgumentParser(add_help=False)
    table.add_argument("--table", help="the Keys table (default: KEYS_TABLE; the stack's output KeysTable)")
    limits = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    for field, (option, about) in _OPTIONS.items():
        limits.add_argument(
            option,
            dest=field,
            type=_usd if field == "usd_per_month" else _limit,
            metavar="N",
            help=f"at most N {about}; `none` for any number",
        )
    parser = argparse.ArgumentParser(prog="python -m handler.billing.keys", description="API keys of a deployment.")
    calls = parser.add_subparsers(required=True)
    create = calls.add_parser(
        "create", parents=[table, limits], help="make a key; it is printed once, and only its SHA-256 is stored"
    )
    create.add_argument("--account", required=True, help="who pays; '*' with --role admin sees all accounts")
    create.add_argument("--role", choices=ROLES, default="inference", help="default: inference")
    create.add_argument("--name", default="", help="a note for people")
    create.set_defaults(call=_create)
    shown = calls.add_parser("list", parents=[table], help="all keys, and the accounts that have limits")
    shown.set_defaults(call=_list)
    change = calls.add_parser(
        "limits", parents=[table, limits], help="set or clear some limits; functions notice within a minute"
    )
    whose = change.add_mutually_exclusive_group(required=True)
    whose.add_argument("key_id", nargs="?", type=_key_id, help="whose, as `list` prints it (key_…)")
    whose.add_argument("--account", help="or all keys of this account together")
    change.set_defaults(call=_limits)
    revoke = calls.add_parser("revoke", parents=[table], help="end a key; functions notice within a minute")
    revoke.set_defaults(call=_revoke)
    rotate = calls.add_parser(
        "rotate", parents=[table], help="make another key of the same account, role, name and limits; the old one ends"
    )
    rotate.add_argument(
        "--grace", type=_duration, default="1d", metavar="TIME", help="how long it still works: 30m, 12h, 7d (1d)"
    )
    rotate.set_defaults(call=_rotate)
    for each in (rotate, revoke):
        each.add_argument("key_id", type=_key_id, help="as `list` prints it (key_…)")
    return parser


def _key_id(text: str) -> str:
    if text.startswith("sk-"):  # not to be said again
        raise argparse.ArgumentTypeError("that is a key, and not its id, which `list` shows (key_…)")
    return text


def _create(keys: KeyTable, asked: argparse.Namespace) -> None:
    limits = Limits(**_asked_limits(asked))
    with _making(asked.account):
        clear, key = keys.create(asked.account, asked.role, asked.name, limits)
    who = f"{key.caller.key_id}, role {asked.role}, account {asked.account}, {_told(limits)}"
    _hand_out(clear, who)


def _list(keys: KeyTable, _asked: argparse.Namespace) -> None:
    print("key\taccount\trole\tname\tcreated\tstate\tlimits")  # noqa: T201
    for _, key in sorted(keys.list(), key=lambda row: row[1].created):
        who = key.caller
        row = (who.key_id, who.account, who.role, key.name, _time(key.created), _state(key), _told(who.limits))
        print("\t".join(row))  # noqa: T201
    for account, limits in sorted(keys.accounts.list()):
        print(f"all keys of {account}\t{_told(limits)}")  # noqa: T201


def _state(key: Key) -> str:
    if key.revoked is not None:
        return f"revoked {_time(key.revoked)}"
    if key.expires is None:
        return "active"
    return f"{'expired' if key.expires <= time.time() else 'active until'} {_time(key.expires)}"


def _limits(keys: KeyTable, asked: argparse.Namespace) -> None:
    changes = _asked_limits(asked)
    if not changes:
        raise ValueError(
            f"nothing to change: {', '.join(option for option, _ in _OPTIONS.values())}; `list` shows limits"
        )
    if asked.account is not None:
        known.chosen(asked.account, known.accounts(keys))
        whose, limits = f"all keys of {asked.account}", keys.accounts.limit(asked.account, changes)
    elif (found := keys.limit(asked.key_id, changes)) is not None:
        whose, limits = asked.key_id, found
    else:
        raise _unknown(asked.key_id)
    print(f"{whose}: {_told(limits)}; functions notice within {FOUND_S} seconds.")  # noqa: T201


def _rotate(keys: KeyTable, asked: argparse.Namespace) -> None:
    with _making(f"the account of {asked.key_id}"):
        made = keys.rotate(asked.key_id, asked.grace)
    if made is None:
        raise _unknown(asked.key_id)
    clear, key, expires = made
    _hand_out(clear, f"{key.caller.key_id} follows {asked.key_id}, which ends {_time(expires)}")


def _revoke(keys: KeyTable, asked: argparse.Namespace) -> None:
    if not keys.revoke(asked.key_id):
        raise _unknown(asked.key_id)
    print(f"{asked.key_id} is revoked; functions notice within {FOUND_S} seconds.")  # noqa: T201


@contextmanager
def _making(account: str) -> Iterator[None]:
    """Where no attempt at a write within was answered, what it was to write may be there: ValueError says so."""
    from botocore.exceptions import ClientError, HTTPClientError

    try:
        yield
    except (ClientError, HTTPClientError) as error:
        answer = getattr(error, "response", {}).get("ResponseMetadata", {})
        if answer.get("HTTPStatusCode", 500) < 500 and not answer.get("RetryAttempts"):
            raise  # it was refused, at the first attempt
        raise ValueError(
            f"{error}. A key of {account} may be there that nobody has: `list` shows the newest last, `revoke` ends it"
        ) from error


def _hand_out(clear: str, about: str) -> None:
    """The key alone is the output, for a shell to take."""
    print(f"{about}. Keep it: it is shown only now.", file=sys.stderr, flush=True)  # noqa: T201
    print(clear)  # noqa: T201


def _unknown(key_id: str) -> ValueError:
    return ValueError(f"no key {key_id}; `list` shows the ids")


def _asked_limits(asked: argparse.Namespace) -> dict[str, Any]:
    """Those that were named."""
    return {field: most for field, most in vars(asked).items() if field in _OPTIONS}


def _limit(text: str) -> int | None:
    if text == "none":
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1, at most 15 digits, or `none`")
    return int(text)


def _usd(text: str) -> Decimal | None:
    if text == "none":
        return None
    if not _USD.fullmatch(text) or not Decimal(text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a decimal number above 0, such as 25.50, or `none`")
    return Decimal(text)


def _duration(text: str) -> int:
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit() and len(number) < 9 and unit in _SECONDS):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number and s, m, h or d, such as 12h")
    return int(number) * _SECONDS[unit]


def _told(limits: Limits) -> str:
    units = {
        "requests per minute": limits.requests_per_minute,
        "tokens per minute": limits.tokens_per_minute,
        "tokens per month": limits.tokens_per_month,
        "USD per month": limits.usd_per_month,
    }
    return ", ".join(f"{Decimal(most):f} {unit}" for unit, most in units.items() if most is not None) or "no limits"


def _time(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
