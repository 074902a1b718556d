"""A shard whose executions have ended before their time goes line by line: which line it is at is kept, so that the
next execution knows which one this one died of, or had no time for though it had most of it. One such end may have had
another cause; a second at the same line has not. Where a process has many calls, any of them may have ended it, and
comes again with this one, as long after as before; of four times at the same line, not each.

A message that is tried alone is kept likewise, as of one line."""

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from types import TracebackType
from typing import NamedTuple, Self

from handler import store
from handler.batches.rows import Row, Rows, kept, row_key
from handler.bulk import Answered
from handler.contract.batches import Batch
from handler.contract.errors import ApiError
from handler.engine.engine import DeadlineError
from handler.settings import Settings

DEATHS, DEATHS_AMONG_MANY = 2, 4  # executions that have ended at a line of which it is dead
ALONE = threading.Lock()  # of this process: whoever may be about to end it holds it, so that nobody else is blamed
_DEATH, _DELAY = "death#", "delay#"  # and the offset of a line: how often
_ENDS_S = 60.0  # after its deadline an execution has ended, and its message is not there again yet
_MESSAGE_S = 30 * 86400  # a row of a message, since it was sent: two queues keep it for 14 days each
_ATTEMPTS = 2  # at what fails alone, where other texts do not
_PATIENCE_S = 15.0  # to take back that a line is under way: of the time that is spared for the end


def deaths(config: Settings) -> int:
    """Of how many deaths it is dead, in this process."""
    return DEATHS_AMONG_MANY if config.has_many_callers else DEATHS


class Fate(Enum):
    """What earlier executions have met with at a line."""

    OPEN = auto()
    DEAD = auto()  # so many as it takes have died of it
    LATE = auto()  # as many had begun with it, and their time was up before it was done


class BusyError(TimeoutError):
    """Another execution is at it: its line under way is none that an execution has died of; or at another in this
    process, where one goes line by line."""


class Place(NamedTuple):
    """The row of a shard or of a message, and until when it is kept."""

    pk: str
    sk: str
    kept: Row


def of_shard(batch: Batch, shard: int) -> Place:
    return Place(f"careful#{batch.id}", f"{shard:08}", kept(batch))


def of_message(name: str, sent: float) -> Place:
    """`name`: by SQS; `sent`: Unix seconds."""
    return Place(f"careful#{name}", "message", {"N": str(int(sent) + _MESSAGE_S)})


def has_begun(rows: Rows, place: Place) -> bool:
    """Whether an execution has gone line by line, whatever message it was of. Raises StoreUnavailableError."""
    return rows.get(place.pk, place.sk) is not None


def attempt(
    embed: Callable[[], list[Answered]], probe: Callable[[], None], failed: Callable[[str], None]
) -> list[Answered] | None:
    """What a line gets alone; None where it fails for good: twice, and a good text, which `probe` embeds, does not.
    `failed` is told of what. Raises DeadlineError, StoreUnavailableError and ApiError as `embed` does; and EndedError
    where the good text fails too: it did not before."""
    for _ in range(_ATTEMPTS):
        try:
            return embed()
        except (DeadlineError, store.StoreUnavailableError, ApiError):
            raise
        except Exception as error:
            failed(type(error).__name__)
        try:
            probe()
        except (DeadlineError, store.StoreUnavailableError):
            raise
        except Exception as error:
            raise EndedError("the engine embeds nothing since a line") from error
    return None


class EndedError(RuntimeError):
    """Since the line under way the engine embeds nothing any more: its process is as good as ended by it."""


class Careful:
    """The row of a line under way, and of how often executions have met with what at which line. A context manager: a
    block that ends, however it does but for EndedError, has died of none, if that can be kept. Raises
    StoreUnavailableError, and BusyError before any line is begun."""

    def __init__(self, rows: Rows, place: Place, deadline: float | None, deaths: int, *, waited: bool = False) -> None:
        """`deadline`: a moment of time.monotonic(), soon after which this execution is known to have ended; `deaths`:
        DEATHS, or DEATHS_AMONG_MANY; `waited`: whether it has lost much of its time, so that a line for which the rest
        is too short may have had too little of it."""
        left = 0.0 if deadline is None else deadline - time.monotonic() + _ENDS_S
        self._rows, self._place, self._me, self._until = rows, place, secrets.token_hex(8), time.time() + left
        self._deaths, self._waited = deaths, waited
        self._counts, self._begun = Counter[str](), list[int]()

    def __enter__(self) -> Self:
        row = self._rows.get(self._place.pk, self._place.sk) or {}
        self._counts.update({name: int(row[name]["N"]) for name in row if name.startswith((_DEATH, _DELAY))})
        if "at" in row:
            if float(row["until"]["N"]) > time.time():
                raise BusyError("another execution is at it")
            self._leave(row["by"]["S"], f"{_DEATH}{row['at']['N']}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._begun:
            return
        count = self._met(kind)
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                with suppress(BusyError):
                    self._leave(self._me, count)
            except store.StoreUnavailableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)
            else:
                return

    def _met(self, kind: type[BaseException] | None) -> str | None:
        """What is counted of a block that has ended so."""
        if kind is not None and issubclass(kind, EndedError):
            return f"{_DEATH}{self._begun[-1]}"
        had_all = len(self._begun) == 1 and not self._waited
        is_late = had_all and kind is not None and issubclass(kind, DeadlineError)
        return f"{_DELAY}{self._begun[0]}" if is_late else None

    def begin(self, offset: int) -> Fate:
        """Keep that the line at this byte is under way, if it is still to be tried."""
        if self._counts[f"{_DEATH}{offset}"] >= self._deaths:
            return Fate.DEAD
        if self._counts[f"{_DELAY}{offset}"] >= self._deaths:
            return Fate.LATE
        self._begun.append(offset)  # also where it may be kept and nobody has said so
        own = {"at": {"N": str(offset)}, "by": {"S": self._me}, "until": {"N": f"{self._until:.3f}"}}
        self._update(self._me, own)
        return Fate.OPEN

    def _leave(self, by: str, count: str | None) -> None:
        """No line is under way any more. Of what there is one more is said how many there are, not that there is one
        more: said twice it is the same."""
        more = {} if count is None else {count: {"N": str(self._counts[count] + 1)}}
        self._update(by, more)
        self._counts.update(more.keys())

    def _update(self, by: str, values: Row) -> None:
        """Set these, and without `at` that no line is under way; where none is, or one of this execution's. Raises
        BusyError."""
        values = values | {"ttl": self._place.kept}
        named = list(enumerate(values))
        expression = "SET " + ", ".join(f"#{place} = :{place}" for place, _ in named)
        changed = self._rows.update(
            {
                "Key": row_key(self._place.pk, self._place.sk),
                "UpdateExpression": expression if "at" in values else f"{expression} REMOVE #at",
                "ConditionExpression": "attribute_not_exists(#at) OR #by = :by",
                "ExpressionAttributeNames": {"#at": "at", "#by": "by"} | {f"#{place}": name for place, name in named},
                "ExpressionAttributeValues": {":by": {"S": by}} | {f":{place}": values[name] for place, name in named},
            }
        )
        if changed is None:
            raise BusyError("another execution is at it")
