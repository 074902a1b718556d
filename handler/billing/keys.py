"""API keys: made once, shown once, stored as SHA-256; looked up with a short memory.

`python -m handler.billing.keys create|list|revoke` is the operator's tool.
"""

import hashlib
import logging
import re
import secrets
import string
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from handler import settings, store

if TYPE_CHECKING:
    import argparse

    from types_boto3_dynamodb import DynamoDBClient

log = logging.getLogger(__name__)

ROLES = ("inference", "admin")
ACCOUNT = re.compile(r"[A-Za-z0-9_.-]{1,64}|\*")  # no "#", which separates the parts of a record's key
ALL_ACCOUNTS = "*"

_PREFIX, _RANDOM, _CHECK = "sk-", 32, 6  # 32 of 62 characters are 190 bits
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_FOUND_S, _MISSING_S, _STALE_S = 60, 5, 600
_REMEMBERED = 10_000


@dataclass(frozen=True)
class Caller:
    """Who a request is billed to."""

    account: str
    key_id: str
    role: str


@dataclass(frozen=True)
class Key:
    """A row of the Keys table, without its hash."""

    caller: Caller
    name: str
    created: int
    revoked: int | None


_NEVER: tuple[float, Caller | None] = (float("-inf"), None)


def make() -> str:
    """A new clear key: `sk-`, 32 random characters, and 6 that are the checksum of the rest."""
    body = _PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    return body + _checksum(body)


def well_formed(clear: str) -> bool:
    """Whether it could be a key of ours: what could not is refused without a look at the table."""
    body, check = clear[:-_CHECK], clear[-_CHECK:]
    return len(clear) == len(_PREFIX) + _RANDOM + _CHECK and body.startswith(_PREFIX) and check == _checksum(body)


def digest(clear: str) -> str:
    return hashlib.sha256(clear.encode()).hexdigest()


def _checksum(body: str) -> str:
    value, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECK):
        value, digit = divmod(value, len(_ALPHABET))
        digits += _ALPHABET[digit]
    return digits


class Keys:
    """The Keys table. A key found is remembered for 60 s, the longest that a revocation takes; one not found for 5.

    Where the table cannot be reached, keys seen in the last 10 minutes are served all the same.
    """

    def __init__(
        self, client: Callable[[], "DynamoDBClient"], table: str, clock: Callable[[], float] = time.time
    ) -> None:
        # By the wall clock, because the clocks of a frozen process stand still.
        self._client, self._table, self._clock = client, table, clock
        self._seen: dict[str, tuple[float, Caller | None]] = {}
        self._lock = threading.Lock()

    def remembered(self, clear: str) -> Caller | None:
        """The caller of a key found in the last 60 s; None says nothing of any other key. Never waits."""
        seen, caller = self._seen.get(digest(clear), _NEVER)
        return caller if self._clock() - seen < _FOUND_S else None

    def find(self, clear: str) -> Caller | None:
        """The caller a key stands for; None if it is unknown or revoked. Raises StoreUnavailableError."""
        if not well_formed(clear):
            return None
        hashed, now = digest(clear), self._clock()
        seen, caller = self._seen.get(hashed, _NEVER)
        if now - seen < (_FOUND_S if caller else _MISSING_S):
            return caller
        try:
            found = self._read(hashed)
        except store.StoreUnavailableError:
            if caller and now - seen < _STALE_S:
                return caller
            raise
        with self._lock:
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            self._seen[hashed] = now, found
        return found

    def warm(self) -> None:
        """Make the client and its connection before the first request has to; a table out of reach is only logged."""
        try:
            self._read(digest(""))
        except store.StoreUnavailableError as error:
            log.warning("Keys table out of reach: %s", error)

    def _read(self, hashed: str) -> Caller | None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            item = self._client().get_item(TableName=self._table, Key={"hash": {"S": hashed}}).get("Item")
        except (BotoCoreError, ClientError) as error:
            raise store.StoreUnavailableError(store.reason(error, self._table)) from error
        if item is None or "revoked" in item:
            return None
        return Caller(item["account"]["S"], item["key_id"]["S"], item["role"]["S"])

    def create(self, account: str, role: str, name: str) -> tuple[str, Key]:
        """A new key, clear and as stored; the clear text is nowhere else. ValueError for a bad account or role."""
        if not ACCOUNT.fullmatch(account):
            raise ValueError(f"account {account!r}: expected 1 to 64 letters, digits, '_', '.' or '-', or '*'")
        if role not in ROLES:
            raise ValueError(f"role {role!r}: expected one of {', '.join(ROLES)}")
        if account == ALL_ACCOUNTS and role != "admin":
            raise ValueError("account '*' is for admin keys: there is nobody to bill")
        if not name.isprintable():
            raise ValueError("name: expected printable characters, no tabs or line breaks")
        clear = make()
        key = Key(Caller(account, f"key_{secrets.token_hex(8)}", role), name, int(self._clock()), None)
        self._client().put_item(
            TableName=self._table,
            Item={
                "hash": {"S": digest(clear)},
                "account": {"S": account},
                "key_id": {"S": key.caller.key_id},
                "role": {"S": role},
                "name": {"S": name},
                "created": {"N": str(key.created)},
            },
            ConditionExpression="attribute_not_exists(#hash)",
            ExpressionAttributeNames={"#hash": "hash"},
        )
        return clear, key

    def list(self) -> Iterator[tuple[str, Key]]:
        """Every key with its hash, in the table's order."""
        for page in self._client().get_paginator("scan").paginate(TableName=self._table, ConsistentRead=True):
            for item in page["Items"]:
                caller = Caller(item["account"]["S"], item["key_id"]["S"], item["role"]["S"])
                revoked = int(item["revoked"]["N"]) if "revoked" in item else None
                yield item["hash"]["S"], Key(caller, item["name"]["S"], int(item["created"]["N"]), revoked)

    def revoke(self, key_id: str) -> bool:
        """False if there is no such key; one revoked before keeps its time. Functions notice within a minute."""
        for hashed, key in self.list():
            if key.caller.key_id == key_id:
                self._client().update_item(
                    TableName=self._table,
                    Key={"hash": {"S": hashed}},
                    UpdateExpression="SET revoked = if_not_exists(revoked, :now)",
                    ConditionExpression="attribute_exists(#hash)",
                    ExpressionAttributeNames={"#hash": "hash"},
                    ExpressionAttributeValues={":now": {"N": str(int(self._clock()))}},
                )
                return True
        return False


def main(arguments: list[str] | None = None) -> int:
    """0: done; 1: refused, with the reason on stderr; 2: the call's words are off."""
    import argparse

    table = argparse.ArgumentParser(add_help=False)
    table.add_argument("--table", help="the Keys table (default: KEYS_TABLE; the stack's output KeysTable)")
    parser = argparse.ArgumentParser(prog="python -m handler.billing.keys", description="API keys of a deployment.")
    calls = parser.add_subparsers(dest="call", required=True)
    create = calls.add_parser(
        "create", parents=[table], help="make a key; it is printed once, and only its SHA-256 is stored"
    )
    create.add_argument("--account", required=True, help="who pays; '*' with --role admin sees all accounts")
    create.add_argument("--role", choices=ROLES, default="inference", help="default: inference")
    create.add_argument("--name", default="", help="a note for people")
    calls.add_parser("list", parents=[table], help="all keys: id, account, role, name, created, state")
    revoke = calls.add_parser("revoke", parents=[table], help="end a key; functions notice within a minute")
    revoke.add_argument("key_id", help="as `list` prints it (key_…)")
    asked = parser.parse_args(arguments)

    from botocore.exceptions import BotoCoreError, ClientError

    try:
        config = settings.read()
        name = asked.table or config.keys_table
        if not name:
            settings.required(config, "keys_table")
        return _call(asked, Keys(store.dynamodb, name))
    except ClientError as error:
        print(f"error: table {name}: {error}", file=sys.stderr)  # noqa: T201
    except (BotoCoreError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
    return 1


def _call(asked: "argparse.Namespace", keys: Keys) -> int:
    if asked.call == "create":
        clear, key = keys.create(asked.account, asked.role, asked.name)
        print(f"{key.caller.key_id}, role {asked.role}, account {asked.account}. Keep it: it is shown only now.")  # noqa: T201
        print(clear)  # noqa: T201
    elif asked.call == "list":
        print("key\taccount\trole\tname\tcreated\tstate")  # noqa: T201
        for _, key in sorted(keys.list(), key=lambda row: row[1].created):
            state = "active" if key.revoked is None else f"revoked {_time(key.revoked)}"
            who = key.caller
            print(f"{who.key_id}\t{who.account}\t{who.role}\t{key.name}\t{_time(key.created)}\t{state}")  # noqa: T201
    elif not keys.revoke(asked.key_id):
        raise ValueError(f"no key {asked.key_id}; `list` shows the ids")
    else:
        print(f"{asked.key_id} is revoked; functions notice within {_FOUND_S} seconds.")  # noqa: T201
    return 0


def _time(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


if __name__ == "__main__":
    sys.exit(main())
