"""A shard whose executions have ended before their time goes line by line: which line it is at is kept, so that the
next execution knows which one this one died of, or had no time for though it had most of it. One such end may have had
another cause, where a process has many calls any of them; a second at the same line has not."""

import secrets
import time
from contextlib import suppress
from enum import Enum, auto
from types import TracebackType
from typing import Self

from handler import store
from handler.batches.rows import Row, Rows, kept
from handler.contract.batches import Batch
from handler.engine.engine import DeadlineError

_ENDS_S = 60.0  # after its deadline an execution has ended, and its message is not there again yet
_PATIENCE_S = 15.0  # to take back that a line is under way: of the time that is spared for the end


class Fate(Enum):
    """What earlier executions have met with at a line."""

    OPEN = auto()
    DEAD = auto()  # two have died of it
    LATE = auto()  # two had begun with it, and their time was up before it was done


class BusyError(TimeoutError):
    """Another execution is at the shard: its line under way is none that an execution has died of; or at another shard
    in this process, where one goes line by line."""


class Careful:
    """The row of a shard's line under way, and of those that are not to be tried again. A context manager: a block that
    ends, however it does, has died of none. Raises StoreUnavailableError, and BusyError before any line is begun."""

    def __init__(self, rows: Rows, batch: Batch, shard: int, deadline: float | None) -> None:
        """`deadline`: a moment of time.monotonic(), soon after which this execution is known to have ended."""
        left = 0.0 if deadline is None else deadline - time.monotonic() + _ENDS_S
        self._rows, self._batch, self._me, self._until = rows, batch, secrets.token_hex(8), time.time() + left
        self._key = {"pk": {"S": f"careful#{batch.id}"}, "sk": {"S": f"{shard:08}"}}
        self._suspect, self._dead, self._late, self._too_late = set[int](), set[int](), set[int](), set[int]()
        self._begun: list[int] = []

    def __enter__(self) -> Self:
        row = self._rows.get(self._key["pk"]["S"], self._key["sk"]["S"]) or {}
        self._suspect, self._dead, self._late, self._too_late = (
            _offsets(row, name) for name in ("suspect", "dead", "late", "too_late")
        )
        if "at" in row:
            if float(row["until"]["N"]) > time.time():
                raise BusyError("another is at this shard")
            at = int(row["at"]["N"])
            name, known = ("dead", self._dead) if at in self._suspect else ("suspect", self._suspect)
            self._update(f"ADD {name} :line REMOVE #at", {":line": {"NS": [str(at)]}}, row["by"]["S"])
            known.add(at)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._begun:
            return
        expression, values = "REMOVE #at", Row()
        if kind is not None and issubclass(kind, DeadlineError) and len(self._begun) == 1:
            again = self._begun[0] in self._late
            expression += f" ADD {'too_late' if again else 'late'} :late"
            values = {":late": {"NS": [str(self._begun[0])]}}
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                with suppress(BusyError):
                    self._update(expression, values, self._me)
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
        values = {":at": {"N": str(offset)}, ":until": {"N": f"{self._until:.3f}"}, ":ttl": kept(self._batch)}
        names = {"#until": "until", "#ttl": "ttl"}
        self._update("SET #at = :at, #by = :by, #until = :until, #ttl = :ttl", values, self._me, names)
        self._begun.append(offset)
        return Fate.OPEN

    def _update(self, expression: str, values: Row, by: str, names: dict[str, str] | None = None) -> None:
        """Where no line is under way, or one of this execution's. Raises BusyError."""
        client = self._rows.client()
        with store.answering(self._rows.table):
            try:
                client.update_item(
                    TableName=self._rows.table,
                    Key=self._key,
                    UpdateExpression=expression,
                    ConditionExpression="attribute_not_exists(#at) OR #by = :by",
                    ExpressionAttributeNames={"#at": "at", "#by": "by"} | (names or {}),
                    ExpressionAttributeValues=values | {":by": {"S": by}},
                )
            except client.exceptions.ConditionalCheckFailedException:
                raise BusyError("another is at this shard") from None


def _offsets(row: Row, name: str) -> set[int]:
    return {int(each) for each in row.get(name, {"NS": []})["NS"]}
