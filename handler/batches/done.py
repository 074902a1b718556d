"""The shards that are done: a row each, and counted in their batch's own, in one transaction."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from math import inf
from typing import Any

from handler.batches.rows import Rows, batch_key, kept, put_new, row_key
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

    def __init__(self, rows: Rows, clock: Callable[[], float]) -> None:
        self._rows, self._clock = rows, clock

    def progress(self, batch: Batch, shard: int) -> Progress:
        row = self._rows.get(_partition(batch), _number(shard))
        if row is None:
            return Progress.OPEN
        return Progress.FOLLOWED if "followed" in row else Progress.DONE

    def follow(self, batch: Batch, shard: int) -> None:
        """Note of a shard that is done that the one after it has been sent."""
        self._rows.update(
            {
                "Key": row_key(_partition(batch), _number(shard)),
                "UpdateExpression": "SET followed = :true",
                "ExpressionAttributeValues": {":true": {"BOOL": True}},
            }
        )

    def of(self, batch: Batch) -> Iterator[tuple[int, Counts]]:
        """Those of a batch, in order."""
        for row in self._rows.pages(_partition(batch)):
            yield int(row["sk"]["S"]), Counts(**{name: int(row[name]["N"]) for name in Counts.__dataclass_fields__})

    def due(self, batch: Batch, since: float = inf) -> list[int]:
        """The shards of a batch that is planned whose turn it is, in order, where that was so before `since`: of each
        chain, in which one sends the next, the first that is not done."""
        assert batch.shards is not None  # noqa: S101  (it is planned)
        planned = float(batch.times["in_progress_at"])
        turns = [(number, planned) for number in range(min(batch.at_once, batch.shards))]
        for row in self._rows.pages(_partition(batch)):
            number = int(row["sk"]["S"])
            if number == turns[number % batch.at_once][0]:
                turns[number % batch.at_once] = number + batch.at_once, float(row["at"]["N"])
        return sorted(number for number, at in turns if number < batch.shards and at < since)

    def count(self, batch: Batch, shard: int, counts: Counts) -> bool:
        """A shard is done: noted and counted, whoever else attempts it. Whether it was us."""
        numbers = {name: {"N": str(value)} for name, value in vars(counts).items()}
        row = {**row_key(_partition(batch), _number(shard)), **numbers}
        row |= {"at": {"N": f"{self._clock():.3f}"}, "ttl": kept(batch)}
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
