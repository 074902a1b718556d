"""A shard whose executions have ended before their time goes line by line: which line it is at is kept, so that the
next execution knows which one this one died of."""

import time
from types import TracebackType
from typing import Self

from handler import store
from handler.batches.rows import Row, Rows, kept
from handler.contract.batches import Batch

_PATIENCE_S = 30.0  # to take back that a line is under way, when something else has gone wrong


class Careful:
    """The row of a shard's line under way, and of those that it has died of. A context manager: a block that ends,
    however it does, has died of none. Raises StoreUnavailableError."""

    def __init__(self, rows: Rows, batch: Batch, shard: int) -> None:
        self._rows, self._batch = rows, batch
        self._key = {"pk": {"S": f"careful#{batch.id}"}, "sk": {"S": f"{shard:08}"}}
        self._dead: set[int] = set()

    def __enter__(self) -> Self:
        row = self._rows.get(self._key["pk"]["S"], self._key["sk"]["S"]) or {}
        self._dead = {int(each) for each in row.get("dead", {"NS": []})["NS"]}
        if "at" in row:
            self._update("ADD dead :dead REMOVE #at", {":dead": {"NS": [row["at"]["N"]]}})
            self._dead.add(int(row["at"]["N"]))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                self._update("REMOVE #at", {})
            except store.StoreUnavailableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)
            else:
                return

    def begin(self, offset: int) -> bool:
        """Keep that the line at this byte is under way; False for one that an execution has died of."""
        if offset in self._dead:
            return False
        self._update(
            "SET #at = :at, #ttl = :ttl", {":at": {"N": str(offset)}, ":ttl": kept(self._batch)}, {"#ttl": "ttl"}
        )
        return True

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
