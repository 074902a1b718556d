"""`python -m handler.billing.keys`: the operator's tool for API keys and their limits."""

import argparse
import sys
import time

from handler import settings, store
from handler.billing.keys import FOUND_S, ROLES, Keys
from handler.contract.limits import Limits

_OPTIONS = {
    "requests_per_minute": ("--rpm", "requests per UTC minute"),
    "tokens_per_minute": ("--tpm", "tokens per UTC minute"),
    "tokens_per_month": ("--tokens-per-month", "tokens per UTC month, the key's quota"),
}


def main(arguments: list[str] | None = None) -> int:
    """0: done; 1: refused, with the reason on stderr; 2: the call's words are off."""
    asked = _parser().parse_args(arguments)

    from botocore.exceptions import BotoCoreError, ClientError

    try:
        config = settings.read()
        name = asked.table or config.keys_table
        if not name:
            settings.required(config, "keys_table")
        asked.call(Keys(store.dynamodb, name), asked)
    except ClientError as error:
        print(f"error: table {name}: {error}", file=sys.stderr)  # noqa: T201
    except (BotoCoreError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
    else:
        return 0
    return 1


def _parser() -> argparse.ArgumentParser:
    table = argparse.ArgumentParser(add_help=False)
    table.add_argument("--table", help="the Keys table (default: KEYS_TABLE; the stack's output KeysTable)")
    limits = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    for field, (option, about) in _OPTIONS.items():
        limits.add_argument(
            option, dest=field, type=_limit, metavar="N", help=f"at most N {about}; `none` for any number"
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
    shown = calls.add_parser("list", parents=[table], help="all keys: id, account, role, name, created, state, limits")
    shown.set_defaults(call=_list)
    change = calls.add_parser(
        "limits", parents=[table, limits], help="set or clear some of a key's limits; functions notice within a minute"
    )
    change.set_defaults(call=_limits)
    revoke = calls.add_parser("revoke", parents=[table], help="end a key; functions notice within a minute")
    revoke.set_defaults(call=_revoke)
    for each in (change, revoke):
        each.add_argument("key_id", help="as `list` prints it (key_…)")
    return parser


def _create(keys: Keys, asked: argparse.Namespace) -> None:
    limits = Limits(**_asked_limits(asked))
    clear, key = keys.create(asked.account, asked.role, asked.name, limits)
    who = f"{key.caller.key_id}, role {asked.role}, account {asked.account}, {_told(limits)}"
    print(f"{who}. Keep it: it is shown only now.")  # noqa: T201
    print(clear)  # noqa: T201


def _list(keys: Keys, _asked: argparse.Namespace) -> None:
    print("key\taccount\trole\tname\tcreated\tstate\tlimits")  # noqa: T201
    for _, key in sorted(keys.list(), key=lambda row: row[1].created):
        state = "active" if key.revoked is None else f"revoked {_time(key.revoked)}"
        who = key.caller
        row = (who.key_id, who.account, who.role, key.name, _time(key.created), state, _told(who.limits))
        print("\t".join(row))  # noqa: T201


def _limits(keys: Keys, asked: argparse.Namespace) -> None:
    changes = _asked_limits(asked)
    if not changes:
        raise ValueError(
            f"nothing to change: {', '.join(option for option, _ in _OPTIONS.values())}; `list` shows limits"
        )
    limits = keys.limit(asked.key_id, changes)
    if limits is None:
        raise _unknown(asked.key_id)
    print(f"{asked.key_id}: {_told(limits)}; functions notice within {FOUND_S} seconds.")  # noqa: T201


def _revoke(keys: Keys, asked: argparse.Namespace) -> None:
    if not keys.revoke(asked.key_id):
        raise _unknown(asked.key_id)
    print(f"{asked.key_id} is revoked; functions notice within {FOUND_S} seconds.")  # noqa: T201


def _unknown(key_id: str) -> ValueError:
    return ValueError(f"no key {key_id}; `list` shows the ids")


def _asked_limits(asked: argparse.Namespace) -> dict[str, int | None]:
    """Those that were named."""
    return {field: most for field, most in vars(asked).items() if field in _OPTIONS}


def _limit(text: str) -> int | None:
    if text == "none":
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1, at most 15 digits, or `none`")
    return int(text)


def _told(limits: Limits) -> str:
    units = {
        "requests per minute": limits.requests_per_minute,
        "tokens per minute": limits.tokens_per_minute,
        "tokens per month": limits.tokens_per_month,
    }
    return ", ".join(f"{most} {unit}" for unit, most in units.items() if most is not None) or "no limits"


def _time(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
