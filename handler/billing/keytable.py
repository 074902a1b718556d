"""The Keys table, as an operator works on it: keys made once, shown once, stored as SHA-256. No function imports it."""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from handler.billing.accounts import ACCOUNT, ALL_ACCOUNTS, Accounts, changed, stored
from handler.billing.keys import ROLES, Caller, caller_of, items
from handler.billing.keytext import digest, make
from handler.contract.limits import NO_LIMITS, Limits

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

_NO_ADMIN = "limits are for inference keys: an admin key embeds nothing"


@dataclass(frozen=True)
class Key:
    """A row of the table, without its hash."""

    caller: Caller
    name: str
    created: int
    revoked: int | None
    expires: int | None = None


class KeyTable:
    """The keys, and the limits of accounts, which lie among them. Every call raises botocore's errors."""

    def __init__(
        self, client: Callable[[], "DynamoDBClient"], table: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._client, self._table, self._clock = client, table, clock
        self.accounts = Accounts(client, table)

    def list(self) -> Iterator[tuple[str, Key]]:
        """Every key with its hash, in the table's order."""
        for item in items(self._client(), self._table):
            ends = (int(item[end]["N"]) if end in item else None for end in ("revoked", "expires"))
            yield item["hash"]["S"], Key(caller_of(item), item["name"]["S"], int(item["created"]["N"]), *ends)

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
