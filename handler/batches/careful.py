"""A shard whose executions have ended before their time goes line by line: which line it is at is kept, so that the
next execution knows which one this one died of, or had no time for though it had all of it."""

import time
from enum import Enum, auto
from types import TracebackType
from typing import Self

from handler import store
from handler.batches.rows import Row, Rows, kept
from handler.contract.batches import Batch
from handler.engine.engine import DeadlineError

_PATIENCE_S = 30.0  # to take back that a line is under way, when something else has gone wrong


class Fate(Enum):
    """What earlier executions have met with at a line."""

    OPEN = auto()
    DEAD = auto()  # one has died of it
    LATE = auto()  # two had begun with it, and their time was up before it was done


class Careful:
    """The row of a shard's line under way, and of those that are not to be tried again. A context manager: a block that
    ends, however it does, has died of none. Raises StoreUnavailableError."""

    def __init__(self, rows: Rows, batch: Batch, shard: int) -> None:
        self._rows, self._batch = rows, batch
        self._key = {"pk": {"S": f"careful#{batch.id}"}, "sk": {"S": f"{shard:08}"}}
        self._dead, self._late, self._too_late = set[int](), set[int](), set[int]()
        self._begun: list[int] = []

    def __enter__(self) -> Self:
        row = self._rows.get(self._key["pk"]["S"], self._key["sk"]["S"]) or {}
        self._dead, self._late, self._too_late = (_offsets(row, name) for name in ("dead", "late", "too_late"))
        if "at" in row:
            self._update("ADD dead :dead REMOVE #at", {":dead": {"NS": [row["at"]["N"]]}})
            self._dead.add(int(row["at"]["N"]))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        expression, values = "REMOVE #at", {}
        if kind is not None and issubclass(kind, DeadlineError) and len(self._begun) == 1:
            again = self._begun[0] in self._late
            expression += f" ADD {'too_late' if again else 'late'} :late"
            values = {":late": {"NS": [str(self._begun[0])]}}
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                self._update(expression, values)
            except store.StoreUnavailableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)
            else:
                return

    def begin(self, offset: int) -> Fate:
        """Keep that the line at this byte is under way, if it is still to be tried."""
        if offset in self._dead:
            return Fate.DEAD
        if offset in self._too_late:
            return Fate.LATE
        self._begun.append(offset)
        self._update(
            "SET #at = :at, #ttl = :ttl", {":at": {"N": str(offset)}, ":ttl": kept(self._batch)}, {"#ttl": "ttl"}
        )
        return Fate.OPEN

    def _update(self, expression: str, values: Row, names: dict[str, str] | None = None) -> None:
        more = {"ExpressionAttributeValues": values} if values else {}
        with store.answering(self._rows.table):
            self._rows.client().update_item(
                TableName=self._rows.table,
                Key=self._key,
                UpdateExpression=expression,
                ExpressionAttributeNames={"#at": "at"} | (names or {}),
                **more,  # type: ignore[arg-type]
            )


def _offsets(row: Row, name: str) -> set[int]:
    return {int(each) for each in row.get(name, {"NS": []})["NS"]}
