"""API keys: made once, shown once, stored as SHA-256; looked up with a short memory.

`python -m handler.billing.keys` is the operator's tool (keytool.py).
"""

import logging
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from handler import store
from handler.billing.accounts import ACCOUNT as ACCOUNT
from handler.billing.accounts import ALL_ACCOUNTS as ALL_ACCOUNTS
from handler.billing.accounts import PREFIX, Accounts, changed, limits_of, stored
from handler.billing.keytext import digest as digest
from handler.billing.keytext import make as make
from handler.billing.keytext import well_formed as well_formed
from handler.contract.limits import NO_LIMITS, Limits

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

log = logging.getLogger(__name__)

ROLES = ("inference", "admin")

FOUND_S, _MISSING_S, _STALE_S = 60, 5, 600
_REMEMBERED = 10_000


@dataclass(frozen=True)
class Caller:
    """Who a request is billed to, and what it may use: its key, and all keys of its account together."""

    account: str
    key_id: str
    role: str
    limits: Limits = NO_LIMITS
    account_limits: Limits = NO_LIMITS


@dataclass(frozen=True)
class Key:
    """A row of the Keys table, without its hash."""

    caller: Caller
    name: str
    created: int
    revoked: int | None
    expires: int | None = None


_NO_ADMIN = "limits are for inference keys: an admin key embeds nothing"
_NEVER: tuple[float, Caller | None, float] = (float("-inf"), None, 0)


class Keys:
    """The Keys table. A key found is remembered for 60 s, the longest that a revocation takes; one not found for 5.

    Where the table cannot be reached, keys seen in the last 10 minutes are served all the same.
    """

    def __init__(
        self, client: Callable[[], "DynamoDBClient"], table: str, clock: Callable[[], float] = time.time
    ) -> None:
        # By the wall clock, because the clocks of a frozen process stand still.
        self._client, self._table, self._clock = client, table, clock
        self.accounts = Accounts(client, table)
        self._seen: dict[str, tuple[float, Caller | None, float]] = {}
        self._named: tuple[float, dict[str, Caller]] = float("-inf"), {}
        self._unknown: dict[str, float] = {}  # ids of no key → when they were looked for
        self._lock = threading.Lock()

    def remembered(self, clear: str) -> Caller | None:
        """The caller of a key found in the last 60 s; None says nothing of any other key. Never waits."""
        (seen, caller, until), now = self._seen.get(digest(clear), _NEVER), self._clock()
        return caller if now - seen < FOUND_S and now < until else None

    def find(self, clear: str) -> Caller | None:
        """The caller a key stands for; None if it is unknown, revoked or expired. Raises StoreUnavailableError."""
        if not well_formed(clear):
            return None
        hashed, now = digest(clear), self._clock()
        seen, caller, until = self._seen.get(hashed, _NEVER)
        if caller and now >= until:
            return None
        if now - seen < (FOUND_S if caller else _MISSING_S):
            return caller
        try:
            found, until = self._read(hashed)
        except store.StoreUnavailableError:
            if caller and now - seen < _STALE_S:
                return caller
            raise
        if now >= until:
            found = None
        with self._lock:
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            self._seen[hashed] = now, found, until
        return found

    def behind(self, hashed: str) -> Caller | None:
        """The caller of a key by its SHA-256, whether it has ended or not. Raises StoreUnavailableError."""
        seen, caller, _ = self._seen.get(hashed, _NEVER)
        if caller is None or self._clock() - seen >= FOUND_S:
            caller, _ = self._read(hashed)
        return caller

    def named(self, key_id: str) -> Caller | None:
        """The caller of a key that has not ended, by its id. All keys are read for it, and remembered for 60 s; an id
        that is none's, for 5. Raises StoreUnavailableError."""
        now = self._clock()
        if now - self._unknown.get(key_id, float("-inf")) < _MISSING_S:
            return None
        if now - self._named[0] >= FOUND_S or key_id not in self._named[1]:
            with store.answering(self._table):
                rows = [key for _, key in self.list()]
                limits = dict(self.accounts.list())
            callers = {
                key.caller.key_id: replace(key.caller, account_limits=limits.get(key.caller.account, NO_LIMITS))
                for key in rows
                if key.revoked is None and (key.expires is None or now < key.expires)
            }
            self._named = now, callers
            if key_id not in callers:
                if len(self._unknown) >= _REMEMBERED:
                    self._unknown.clear()
                self._unknown[key_id] = now
        return self._named[1].get(key_id)

    def of_account(self, account: str) -> Caller:
        """All of an account, without a key. Raises StoreUnavailableError."""
        with store.answering(self._table):
            return Caller(account, "none", "inference", NO_LIMITS, self.accounts.limits(account))

    def warm(self) -> None:
        """Make the client and its connection before the first request has to; a table out of reach is only logged."""
        try:
            self._read(digest(""))
        except store.StoreUnavailableError as error:
            log.warning("Keys table out of reach: %s", error)

    def _read(self, hashed: str) -> tuple[Caller | None, float]:
        """The caller, and until when it is one."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            item = self._client().get_item(TableName=self._table, Key={"hash": {"S": hashed}}).get("Item")
            if item is None:
                return None, float("inf")
            embeds = item["role"]["S"] == "inference"
            return _caller(item, self.accounts.limits(item["account"]["S"]) if embeds else NO_LIMITS), _until(item)
        except (BotoCoreError, ClientError) as error:
            raise store.StoreUnavailableError(store.reason(error, self._table)) from error

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
        self._client().put_item(**self._new(clear, key))
        return clear, key

    def rotate(self, key_id: str, grace_s: int) -> tuple[str, Key, int] | None:
        """Another key of the same account, role, name and limits, clear and as stored, and the Unix second in which the
        old one ends; None if there is no such key. What the new key uses is counted anew. ValueError for one that has
        ended, or is going to, or has got other limits meanwhile."""
        row, now = self._row(key_id), int(self._clock())
        if row is None:
            return None
        (hashed, old), client = row, self._client()
        clear, expires = make(), now + grace_s
        key = replace(old, caller=replace(old.caller, key_id=f"key_{secrets.token_hex(8)}"), created=now)
        ends: Any = {
            "TableName": self._table,
            "Key": {"hash": {"S": hashed}},
            "UpdateExpression": "SET expires = :expires",
            "ConditionExpression": "attribute_exists(#hash) AND attribute_not_exists(revoked) AND "
            "attribute_not_exists(expires) AND (attribute_not_exists(limits) OR limits = :limits)",
            "ExpressionAttributeNames": {"#hash": "hash"},
            "ExpressionAttributeValues": {":expires": {"N": str(expires)}, ":limits": stored(old.caller.limits)},
        }
        try:  # botocore gives it a token, by which a second attempt after a lost answer is the first
            client.transact_write_items(TransactItems=[{"Put": self._new(clear, key)}, {"Update": ends}])
        except client.exceptions.TransactionCanceledException as error:
            if any(each.get("Code") == "ConditionalCheckFailed" for each in error.response["CancellationReasons"]):
                raise ValueError(f"{key_id} has been revoked or rotated before, or changed just now") from None
            raise
        return clear, key, expires

    def _new(self, clear: str, key: Key) -> Any:
        """A put's arguments."""
        caller = key.caller
        return {
            "TableName": self._table,
            "Item": {
                "hash": {"S": digest(clear)},
                "account": {"S": caller.account},
                "key_id": {"S": caller.key_id},
                "role": {"S": caller.role},
                "name": {"S": key.name},
                "created": {"N": str(key.created)},
                "limits": stored(caller.limits),
            },
            # A second attempt, after a lost answer to the first, finds the key that it is to make.
            "ConditionExpression": "attribute_not_exists(#hash) OR key_id = :key_id",
            "ExpressionAttributeNames": {"#hash": "hash"},
            "ExpressionAttributeValues": {":key_id": {"S": caller.key_id}},
        }

    def list(self) -> Iterator[tuple[str, Key]]:
        """Every key with its hash, in the table's order."""
        for page in self._client().get_paginator("scan").paginate(TableName=self._table, ConsistentRead=True):
            for item in page["Items"]:
                if not item["hash"]["S"].startswith(PREFIX):
                    ends = (int(item[end]["N"]) if end in item else None for end in ("revoked", "expires"))
                    yield item["hash"]["S"], Key(_caller(item), item["name"]["S"], int(item["created"]["N"]), *ends)

    def revoke(self, key_id: str) -> bool:
        """False if there is no such key; one revoked before keeps its time. Functions notice within a minute."""
        row = self._row(key_id)
        if row:
            self._client().update_item(
                TableName=self._table,
                Key={"hash": {"S": row[0]}},
                UpdateExpression="SET revoked = if_not_exists(revoked, :now)",
                ConditionExpression="attribute_exists(#hash)",
                ExpressionAttributeNames={"#hash": "hash"},
                ExpressionAttributeValues={":now": {"N": str(int(self._clock()))}},
            )
        return row is not None

    def limit(self, key_id: str, changes: Mapping[str, int | Decimal | None]) -> Limits | None:
        """Set these of a key's limits, or clear those that are None; what it has then, or None if there is no such key.
        ValueError for an admin's. Functions notice within a minute."""
        row = self._row(key_id)
        if row is None:
            return None
        hashed, key = row
        if key.caller.role != "inference":
            raise ValueError(_NO_ADMIN)
        return changed(self._client(), self._table, {"hash": {"S": hashed}}, changes, "attribute_exists(created)")

    def _row(self, key_id: str) -> tuple[str, Key] | None:
        return next((row for row in self.list() if row[1].caller.key_id == key_id), None)


def _caller(item: Mapping[str, Any], account_limits: Limits = NO_LIMITS) -> Caller:
    account, key_id, role = (item[part]["S"] for part in ("account", "key_id", "role"))
    return Caller(account, key_id, role, limits_of(item), account_limits)


def _until(item: Mapping[str, Any]) -> float:
    """When a key ends, in Unix seconds."""
    return 0.0 if "revoked" in item else float(item["expires"]["N"]) if "expires" in item else float("inf")


if __name__ == "__main__":
    from handler.billing import keytool

    sys.exit(keytool.main())
