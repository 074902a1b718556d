"""API keys: made once, shown once, stored as SHA-256; looked up with a short memory.

`python -m handler.billing.keys` is the operator's tool (keytool.py).
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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from handler import store
from handler.contract.limits import NO_LIMITS, Limits

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef

log = logging.getLogger(__name__)

ROLES = ("inference", "admin")
ACCOUNT = re.compile(r"[A-Za-z0-9_.-]{1,64}|\*")  # no "#", which separates the parts of a record's key
ALL_ACCOUNTS = "*"

_PREFIX, _RANDOM, _CHECK = "sk-", 32, 6  # 32 of 62 characters are 190 bits
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
FOUND_S, _MISSING_S, _STALE_S = 60, 5, 600
_REMEMBERED = 10_000


@dataclass(frozen=True)
class Caller:
    """Who a request is billed to, and what it may use."""

    account: str
    key_id: str
    role: str
    limits: Limits = NO_LIMITS


@dataclass(frozen=True)
class Key:
    """A row of the Keys table, without its hash."""

    caller: Caller
    name: str
    created: int
    revoked: int | None


_NO_ADMIN = "limits are for inference keys: an admin key embeds nothing"
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
        return caller if self._clock() - seen < FOUND_S else None

    def find(self, clear: str) -> Caller | None:
        """The caller a key stands for; None if it is unknown or revoked. Raises StoreUnavailableError."""
        if not well_formed(clear):
            return None
        hashed, now = digest(clear), self._clock()
        seen, caller = self._seen.get(hashed, _NEVER)
        if now - seen < (FOUND_S if caller else _MISSING_S):
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
        return _caller(item)

    def create(self, account: str, role: str, name: str, limits: Limits = NO_LIMITS) -> tuple[str, Key]:
        """A new key, clear and as stored; the clear text is nowhere else. ValueError for what cannot be."""
        if not ACCOUNT.fullmatch(account):
            raise ValueError(f"account {account!r}: expected 1 to 64 letters, digits, '_', '.' or '-', or '*'")
        if role not in ROLES:
            raise ValueError(f"role {role!r}: expected one of {', '.join(ROLES)}")
        if account == ALL_ACCOUNTS and role != "admin":
            raise ValueError("account '*' is for admin keys: there is nobody to bill")
        if limits and role != "inference":
            raise ValueError(_NO_ADMIN)
        if not name.isprintable():
            raise ValueError("name: expected printable characters, no tabs or line breaks")
        clear = make()
        key = Key(Caller(account, f"key_{secrets.token_hex(8)}", role, limits), name, int(self._clock()), None)
        self._client().put_item(
            TableName=self._table,
            Item={
                "hash": {"S": digest(clear)},
                "account": {"S": account},
                "key_id": {"S": key.caller.key_id},
                "role": {"S": role},
                "name": {"S": name},
                "created": {"N": str(key.created)},
                "limits": _stored(limits),
            },
            ConditionExpression="attribute_not_exists(#hash)",
            ExpressionAttributeNames={"#hash": "hash"},
        )
        return clear, key

    def list(self) -> Iterator[tuple[str, Key]]:
        """Every key with its hash, in the table's order."""
        for page in self._client().get_paginator("scan").paginate(TableName=self._table, ConsistentRead=True):
            for item in page["Items"]:
                revoked = int(item["revoked"]["N"]) if "revoked" in item else None
                yield item["hash"]["S"], Key(_caller(item), item["name"]["S"], int(item["created"]["N"]), revoked)

    def revoke(self, key_id: str) -> bool:
        """False if there is no such key; one revoked before keeps its time. Functions notice within a minute."""
        row = self._row(key_id)
        if row:
            now: AttributeValueTypeDef = {"N": str(int(self._clock()))}
            self._change(row[0], "SET revoked = if_not_exists(revoked, :value)", now)
        return row is not None

    def limit(self, key_id: str, changes: Mapping[str, int | None]) -> Limits | None:
        """Set these of a key's limits, or clear those that are None; what it has then, or None if there is no such key.
        ValueError for an admin's. Functions notice within a minute."""
        row = self._row(key_id)
        if row is None:
            return None
        hashed, key = row
        if key.caller.role != "inference":
            raise ValueError(_NO_ADMIN)
        limits = replace(key.caller.limits, **changes)
        self._change(hashed, "SET limits = :value", _stored(limits))
        return limits

    def _row(self, key_id: str) -> tuple[str, Key] | None:
        return next((row for row in self.list() if row[1].caller.key_id == key_id), None)

    def _change(self, hashed: str, expression: str, value: "AttributeValueTypeDef") -> None:
        self._client().update_item(
            TableName=self._table,
            Key={"hash": {"S": hashed}},
            UpdateExpression=expression,
            ConditionExpression="attribute_exists(#hash)",
            ExpressionAttributeNames={"#hash": "hash"},
            ExpressionAttributeValues={":value": value},
        )


def _caller(item: Mapping[str, Any]) -> Caller:
    most = item.get("limits", {"M": {}})["M"]  # keys of before there were limits have none
    limits = Limits(**{each.name: int(most[each.name]["N"]) for each in fields(Limits) if each.name in most})
    return Caller(item["account"]["S"], item["key_id"]["S"], item["role"]["S"], limits)


def _stored(limits: Limits) -> "AttributeValueTypeDef":
    return {"M": {name: {"N": str(most)} for name, most in asdict(limits).items() if most is not None}}


if __name__ == "__main__":
    from handler.billing import keytool

    sys.exit(keytool.main())
