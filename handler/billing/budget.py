"""What the ledger's stores have for taking a record: two attempts, and a second in all, for a caller is waiting."""

import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from handler.store import StoreUnavailableError, reason

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

ATTEMPTS, SECONDS = 2, 1.0
PATIENT_S = 15.0  # of a record that nobody waits for: ten of them, a message each, are one event of three minutes
_PAUSE_S = 0.01, 0.06  # at random, so that writers who met do not meet again
_CONFLICTS = {"TransactionConflict", "TransactionConflictException", "TransactionInProgressException"}

T = TypeVar("T")


class Budget:
    """For one record, however many calls that takes, by however many threads. None begins in the last `call_s` seconds,
    the longest that one is to take, so that `seconds` is about where it ends whatever the store's pace. `failures`:
    calls that may have been carried out or not."""

    def __init__(self, seconds: float, call_s: float) -> None:
        self._latest = time.monotonic() + seconds - call_s
        self._counting = threading.Lock()
        self.failures = 0

    def call(self, operation: Callable[[], T], place: str) -> T:
        """The operation's result. Raises botocore's error where a condition has failed, which is an answer, and
        StoreUnavailableError once the budget is used up, if need be before the operation. A conflict with another's
        transaction is no failed attempt: it is over as soon as the other is."""
        from botocore.exceptions import BotoCoreError, ClientError

        while True:
            if self.failures >= ATTEMPTS or time.monotonic() > self._latest:
                raise StoreUnavailableError(f"no time left for {place}")
            try:
                return operation()
            except (BotoCoreError, ClientError) as error:
                codes = refusals(error)
                if "ConditionalCheckFailed" in codes or "ConditionalCheckFailedException" in codes:
                    raise
                if not codes & _CONFLICTS:
                    with self._counting:
                        self.failures += 1
                pause = random.uniform(*_PAUSE_S)  # noqa: S311
                if self.failures >= ATTEMPTS or time.monotonic() + pause > self._latest:
                    raise StoreUnavailableError(reason(error, place)) from error
            time.sleep(pause)


def refusals(error: "BotoCoreError | ClientError") -> set[str]:
    """The codes of an error: the service's own, and those of a transaction's parts."""
    response = getattr(error, "response", None) or {}
    codes = {response.get("Error", {}).get("Code", "")}
    return codes | {part.get("Code", "") for part in response.get("CancellationReasons", ())}
