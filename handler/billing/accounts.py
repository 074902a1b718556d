"""What accounts may use, all of an account's keys together: items `account#…` of the Keys table."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from handler.contract.limits import Limits

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef

ACCOUNT = re.compile(r"[A-Za-z0-9_.-]{1,64}|\*")  # no "#", which separates the parts of a record's key
ALL_ACCOUNTS = "*"
PREFIX = "account#"  # no key's hash begins so


class Accounts:
    """The accounts that have limits. Keys reads them with each key it looks for, and remembers both."""

    def __init__(self, client: Callable[[], "DynamoDBClient"], table: str) -> None:
        self._client, self._table = client, table

    def limits(self, account: str) -> Limits:
        """Raises botocore's errors."""
        return limits_of(self._client().get_item(TableName=self._table, Key=_key(account)).get("Item", {}))

    def limit(self, account: str, changes: Mapping[str, int | Decimal | None]) -> Limits:
        """Set these of an account's limits, or clear those that are None; what it has then. ValueError for what is no
        account. Functions notice within a minute."""
        if not ACCOUNT.fullmatch(account) or account == ALL_ACCOUNTS:
            raise ValueError(f"account {account!r}: expected 1 to 64 letters, digits, '_', '.' or '-'")
        return changed(self._client(), self._table, _key(account), changes)

    def list(self) -> Iterator[tuple[str, Limits]]:
        """Every account that has limits, in the table's order."""
        for page in self._client().get_paginator("scan").paginate(TableName=self._table, ConsistentRead=True):
            for item in page["Items"]:
                _, is_account, account = item["hash"]["S"].partition(PREFIX)
                if is_account and (limits := limits_of(item)):
                    yield account, limits


def _key(account: str) -> "dict[str, AttributeValueTypeDef]":
    return {"hash": {"S": f"{PREFIX}{account}"}}


def changed(
    client: "DynamoDBClient",
    table: str,
    key: "dict[str, AttributeValueTypeDef]",
    changes: Mapping[str, int | Decimal | None],
    condition: str = "",
) -> Limits:
    """What the item at a key, or that of its own making, has after these of its limits are set, or cleared if None.

    Each is changed where it lies, and no other is read or written: two operators lose none of each other's, and a
    second attempt after a lost answer leaves the same. Raises botocore's errors.
    """
    words: dict[str, Any] = {"TableName": table, "Key": key}
    if condition:
        words["ConditionExpression"] = condition
    client.update_item(  # a limit can only be set within a map that is there
        **words,
        UpdateExpression="SET limits = if_not_exists(limits, :none)",
        ExpressionAttributeValues={":none": {"M": {}}},
    )
    sets = [f"limits.#{name} = :{name}" for name, most in changes.items() if most is not None]
    removes = [f"limits.#{name}" for name, most in changes.items() if most is None]
    parts = [f"{verb} {', '.join(which)}" for verb, which in (("SET", sets), ("REMOVE", removes)) if which]
    values: dict[str, Any] = {
        f":{name}": {"N": f"{Decimal(most):f}"} for name, most in changes.items() if most is not None
    }
    if values:
        words["ExpressionAttributeValues"] = values
    answer = client.update_item(
        **words,
        UpdateExpression=" ".join(parts),
        ExpressionAttributeNames={f"#{name}": name for name in changes},
        ReturnValues="ALL_NEW",
    )
    return limits_of(answer["Attributes"])


def stored(limits: Limits) -> "AttributeValueTypeDef":
    return {"M": {name: {"N": f"{Decimal(most):f}"} for name, most in asdict(limits).items() if most is not None}}


def limits_of(item: Mapping[str, Any]) -> Limits:
    """Of an item of the Keys table; those of before there were limits have none."""
    most = {name: Decimal(value["N"]) for name, value in item.get("limits", {"M": {}})["M"].items()}
    money = most.pop("usd_per_month", None)
    known = {each.name for each in fields(Limits)}
    return Limits(**{name: int(value) for name, value in most.items() if name in known}, usd_per_month=money)
