"""The shards that are done: a row each, and counted in their batch's own, in one transaction."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from handler import store
from handler.batches.rows import Rows, batch_key, kept, put_new
from handler.contract.batches import Batch


class Progress(Enum):
    """How far a shard is."""

    OPEN = auto()
    DONE = auto()
    FOLLOWED = auto()  # and the one whose turn it then was has been sent


@dataclass(frozen=True)
class Counts:
    """What came of a shard, as its result says: lines and tokens, and how many bytes of it are output and errors."""

    completed: int
    failed: int
    tokens: int
    output: int
    errors: int


class Done:
    """The done shards of all batches. Every call raises StoreUnavailableError where DynamoDB cannot be reached."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def progress(self, batch: Batch, shard: int) -> Progress:
        row = self._rows.get(_partition(batch), _number(shard))
        if row is None:
            return Progress.OPEN
        return Progress.FOLLOWED if "followed" in row else Progress.DONE

    def follow(self, batch: Batch, shard: int) -> None:
        """Note of a shard that is done that the one after it has been sent."""
        values: Any = {":true": {"BOOL": True}}
        with store.answering(self._rows.table):
            self._rows.client().update_item(
                TableName=self._rows.table,
                Key={"pk": {"S": _partition(batch)}, "sk": {"S": _number(shard)}},
                UpdateExpression="SET followed = :true",
                ExpressionAttributeValues=values,
            )

    def of(self, batch: Batch) -> Iterator[tuple[int, Counts]]:
        """Those of a batch, in order."""
        for row in self._rows.pages(_partition(batch)):
            yield int(row["sk"]["S"]), Counts(**{name: int(row[name]["N"]) for name in Counts.__dataclass_fields__})

    def count(self, batch: Batch, shard: int, counts: Counts) -> bool:
        """A shard is done: noted and counted, whoever else attempts it. Whether it was us."""
        numbers = {name: {"N": str(value)} for name, value in vars(counts).items()}
        row = {"pk": {"S": _partition(batch)}, "sk": {"S": _number(shard)}, **numbers, "ttl": kept(batch)}
        adds = {name: numbers[name] for name in ("completed", "failed", "tokens")} | {"done": {"N": "1"}}
        update: dict[str, Any] = {
            "Key": batch_key(batch.account, batch.id),
            "UpdateExpression": "ADD " + ", ".join(f"#{name} :{name}" for name in adds),
            "ExpressionAttributeNames": {f"#{name}": name for name in adds},
            "ExpressionAttributeValues": {f":{name}": value for name, value in adds.items()},
        }
        return self._rows.transact([put_new(row), {"Update": update}])


def _partition(batch: Batch) -> str:
    return f"shards#{batch.id}"


def _number(shard: int) -> str:
    return f"{shard:08}"
