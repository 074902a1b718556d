"""Batches: their rows in the Jobs table, and the conditional steps from one state to the next.

    validating ──► in_progress ──► finalizing ──► completed, or expired where its time was up
        │  │            │
        │  └──► failed  └──► cancelling ──► cancelled
        └─────────────────────────▲

Each step is one conditional update, so that of any who attempt it one makes it, once.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from handler import store
from handler.batches import files
from handler.batches.rows import Row, Rows, batch_key, kept, number, of_batches, put_new, row_key, text
from handler.contract import batches as wire
from handler.contract import errors
from handler.contract.batches import Batch, Fault
from handler.contract.files import File, Page

OPEN = "open"
_NAMED_S = 48 * 3600  # an Idempotency-Key
# What the row of a batch has of it from the first, as text and as numbers.
_WORDS = ("account", "input_file_id", "input_key", "status", "key_id", "key_hash")
_NUMBERS = ("created_at", "expires_at", "output_lasts_s", "done", "total", "completed", "failed", "tokens")


class ReusedError(Exception):
    """The name under which a batch is to be made is another request's."""


class Jobs:
    """The batches of all accounts. Every call raises StoreUnavailableError where DynamoDB cannot be reached."""

    def __init__(self, rows: Rows, clock: Callable[[], float] = time.time) -> None:
        self.rows, self.clock = rows, clock

    def create(self, batch: Batch, name: str | None = None, asked: str = "") -> Batch:
        """A batch, or that which was made under the same `name` before. Raises ReusedError where something else was
        `asked` for under it."""
        puts = [put_new(_row(batch)), put_new(_open_row(batch))]
        if name is not None:
            puts.append(self._name(batch, name, asked))
        if self.rows.transact(puts):
            return batch
        known = self.find(batch.account, batch.id)  # a second attempt's, or that of the same event
        if known is None and name is not None:
            known = self.named(batch.account, name, asked)
        if known is None:
            raise store.StoreUnavailableError(f"a batch could not be made in {self.rows.table}")
        return known

    def named(self, account: str, name: str, asked: str) -> Batch | None:
        """That which has been made under a name, while that is remembered. Raises ReusedError where something else was
        `asked` for under it."""
        row = self.rows.get(f"named#{account}", name)
        if row is None or int(row["ttl"]["N"]) <= self.clock():
            return None
        if text(row, "asked") != asked:
            raise ReusedError
        return self.find(account, str(text(row, "batch")))

    def find(self, account: str, batch_id: str) -> Batch | None:
        row = self.rows.get(of_batches(account), batch_id)
        return None if row is None else _of(row)

    def get(self, account: str, batch_id: str) -> Batch:
        """Raises 404."""
        if (batch := self.find(account, batch_id)) is None:
            raise errors.NO_BATCH.error(param="id", id=batch_id)
        return batch

    def page(self, account: str, page: Page) -> tuple[list[Batch], bool]:
        """A page of an account's batches, newest first, and whether there are more."""
        found: list[Batch] = []
        for row in self.rows.pages(of_batches(account), page.after, ascending=False, size=page.limit + 1):
            if len(found) == page.limit:
                return found, True
            found.append(_of(row))
        return found, False

    def open(self) -> Iterator[Batch]:
        """Every batch that has not ended, those first whose time is up first."""
        for row in self.rows.pages(OPEN):
            if (batch := self.find(row["account"]["S"], row["batch"]["S"])) is not None:
                yield batch

    def cancel(self, account: str, batch_id: str) -> Batch:
        """`cancelling`, or as it was where it is already. Raises 404, and 400 for one that has ended otherwise."""
        self.get(account, batch_id)  # of what is no id DynamoDB refuses a step
        if changed := self._step(account, batch_id, "cancelling", ("validating", "in_progress")):
            return changed
        batch = self.get(account, batch_id)
        if batch.status not in ("cancelling", "cancelled"):
            raise errors.NOT_CANCELLABLE.error(status=batch.status)
        return batch

    def plan(self, batch: Batch, model: str, etag: str, total: int, shards: int, at_once: int) -> Batch | None:
        """`in_progress`, cut into so many shards of a file with this tag; None where it is not `validating`."""
        numbers = {"total": total, "shards": shards, "at_once": at_once}
        facts = {"model": {"S": model}, "etag": {"S": etag}} | {
            name: {"N": str(value)} for name, value in numbers.items()
        }
        return self._step(batch.account, batch.id, "in_progress", ("validating",), facts)

    def fail(self, batch: Batch, faults: tuple[Fault, ...]) -> bool:
        """`failed`, for these reasons; False where it is not `validating`."""
        return self._end(batch, "failed", "validating", {"faults": {"S": wire.dumps(faults)}}, [])

    def expire(self, batch: Batch) -> Batch | None:
        """Nothing more of it is begun; None where it has ended, is ending, or is being cancelled."""
        facts = {"ends": {"S": "expired"}}
        return self._step(batch.account, batch.id, None, ("validating", "in_progress"), facts)

    def finalize(self, batch: Batch) -> Batch | None:
        """`finalizing`, where all its shards are done; None where they are not, or it is not `in_progress`."""
        return self._step(batch.account, batch.id, "finalizing", ("in_progress",), {}, "done = shards")

    def end(
        self, batch: Batch, status: str, output: File | None, errors: File | None, faults: tuple[Fault, ...] = ()
    ) -> bool:
        """The batch's last state, and with it its files, and why lines are in neither; False where it has ended
        before."""
        made = {"output_file_id": output, "error_file_id": errors}
        facts = {name: {"S": file.id} for name, file in made.items() if file is not None}
        facts |= {"faults": {"S": wire.dumps(faults)}} if faults else {}
        return self._end(batch, status, batch.status, facts, [files.row(file) for file in made.values() if file])

    def _step(
        self,
        account: str,
        batch_id: str,
        status: str | None,
        since: tuple[str, ...],
        facts: Row | None = None,
        condition: str = "",
    ) -> Batch | None:
        """One step, where the batch is in one of the states `since`; as it is then, None where it was not made."""
        sets = dict(facts or {})
        if status is not None:
            sets |= {"status": {"S": status}, f"{status}_at": {"N": str(int(self.clock()))}}
        update = _update(account, batch_id, sets, since, condition)
        row = self.rows.update(update | {"ReturnValues": "ALL_NEW"})
        return None if row is None else _of(row)

    def _end(self, batch: Batch, status: str, since: str, facts: Row, rows: list[Row]) -> bool:
        sets = facts | {"status": {"S": status}, f"{status}_at": {"N": str(int(self.clock()))}}
        update = _update(batch.account, batch.id, sets, (since,))
        opened = {"Key": _open_key(batch)}
        return self.rows.transact([{"Update": update}, {"Delete": opened}, *(put_new(row) for row in rows)])

    def _name(self, batch: Batch, name: str, asked: str) -> Row:
        """The put of what a batch is called by who made it, where nothing is, or what there is has been forgotten."""
        row = {
            **row_key(f"named#{batch.account}", name),
            "asked": {"S": asked},
            "batch": {"S": batch.id},
            "ttl": {"N": str(batch.created_at + _NAMED_S)},
        }
        put = put_new(row)
        put["Put"] |= {
            "ConditionExpression": "attribute_not_exists(pk) OR #ttl <= :now",
            "ExpressionAttributeNames": {"#ttl": "ttl"},
            "ExpressionAttributeValues": {":now": {"N": str(batch.created_at)}},
        }
        return put


def _update(account: str, batch_id: str, sets: Row, since: tuple[str, ...], condition: str = "") -> Row:
    names = {f"#{name}": name for name in sets} | {"#status": "status"}
    states = {f":since{place}": {"S": state} for place, state in enumerate(since)}
    return {
        "Key": batch_key(account, batch_id),
        "UpdateExpression": "SET " + ", ".join(f"#{name} = :{name}" for name in sets),
        "ConditionExpression": f"#status IN ({', '.join(states)})" + (f" AND {condition}" if condition else ""),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": {f":{name}": value for name, value in sets.items()} | states,
    }


def _row(batch: Batch) -> Row:
    return {
        **batch_key(batch.account, batch.id),
        **{name: {"S": getattr(batch, name)} for name in _WORDS},
        **{name: {"N": str(getattr(batch, name))} for name in _NUMBERS},
        "metadata": {"S": json.dumps(batch.metadata)},
        "etag": {"S": batch.etag},
        "ttl": kept(batch),
    }


def _of(row: Row) -> Batch:
    maybe = ("model", "ends", "output_file_id", "error_file_id")
    faults = wire.loads(row["faults"]["S"]) if "faults" in row else ()
    batch = Batch(
        id=row["sk"]["S"],
        **{name: str(text(row, name)) for name in _WORDS},  # type: ignore[arg-type]
        **{name: int(row[name]["N"]) for name in _NUMBERS},  # type: ignore[arg-type]
    )
    return replace(
        batch,
        **{name: text(row, name) for name in maybe},  # type: ignore[arg-type]
        metadata=json.loads(row["metadata"]["S"]),
        etag=text(row, "etag") or "",
        shards=number(row, "shards"),
        at_once=number(row, "at_once") or 1,
        faults=faults,
        times={name: int(row[name]["N"]) for name in row if name.endswith("_at") and name != "expires_at"},
    )


def _open_key(batch: Batch) -> Row:
    return row_key(OPEN, f"{batch.expires_at}#{batch.account}#{batch.id}")


def _open_row(batch: Batch) -> Row:
    return {**_open_key(batch), "account": {"S": batch.account}, "batch": {"S": batch.id}}
