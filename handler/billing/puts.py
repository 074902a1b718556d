"""Every put into the ledger, on the condition that nothing lies there yet: IAM cannot demand it, so a test does."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from handler.billing import entries
from handler.billing.budget import Budget
from handler.billing.records import Item, Record

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

_ABSENT = "attribute_not_exists(pk)"


@dataclass(frozen=True)
class Met:
    """What lay there already, in the place of the record or of its entry; nothing has been written."""

    item: Item | None = None
    entry: Item | None = None


class Puts:
    """The Usage table, and the Entries table for records of work that has an identity."""

    def __init__(self, client: Callable[[], "DynamoDBClient"], usage: str, entries: str) -> None:
        self.client, self.usage, self.entries = client, usage, entries

    def put(self, item: Item, budget: Budget, record: Record | None = None) -> Met | None:
        """Put an item into the ledger, together with the entry of a record, if one is given. None: it was done.

        Raises StoreUnavailableError: then it may have been done or not.
        """
        from botocore.exceptions import ClientError

        client = self.client()
        try:
            if record is None:
                budget.call(
                    lambda: client.put_item(
                        TableName=self.usage,
                        Item=item,
                        ConditionExpression=_ABSENT,
                        ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    ),
                    self.usage,
                )
            else:
                budget.call(lambda: self._transact(client, item, record), f"{self.usage} and {self.entries}")
        except ClientError as error:
            response = cast(Item, error.response)
            if record is None:
                return Met(response.get("Item", {}))
            entry, old = (reason.get("Item") for reason in response["CancellationReasons"])
            return Met(old, entry)
        return None

    def entry(self, record: Record, budget: Budget) -> Item | None:
        """What is known under the name of a record's work. Raises StoreUnavailableError."""
        key = {"id": entries.item(record)["id"]}
        client = self.client()
        answer = budget.call(
            lambda: client.get_item(TableName=self.entries, Key=key, ConsistentRead=True), self.entries
        )
        return answer.get("Item")

    def _transact(self, client: "DynamoDBClient", item: Item, record: Record) -> None:
        client.transact_write_items(
            TransactItems=[
                {
                    "Put": {
                        "TableName": self.entries,
                        "Item": entries.item(record),
                        "ConditionExpression": entries.CONDITION,
                        "ExpressionAttributeValues": {":now": {"N": str(entries.made(record))}},
                        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
                    }
                },
                {
                    "Put": {
                        "TableName": self.usage,
                        "Item": item,
                        "ConditionExpression": _ABSENT,
                        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
                    }
                },
            ]
        )
