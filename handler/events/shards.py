"""The door of a batch's own queues, of plans and of shards: messages that are pointers, each worked on for itself."""

import logging
import time
from collections.abc import Callable
from typing import Any

from handler.store import StoreUnavailableError

log = logging.getLogger(__name__)

_SPARE_S, _SPARE = 20.0, 0.2  # of the function's time, or of a short one a part, for what must be written at the end

Take = Callable[[str, int, float | None], None]
"""Work on a message's body that has been received so often, until a moment of time.monotonic() (None: for ever). Raises
StoreUnavailableError, TimeoutError or ValueError."""


class Pointers:
    """A door for events of SQS whose mapping has ReportBatchItemFailures. What fails comes again, in the end to the
    dead-letter queue; the log says why."""

    def __init__(self, take: Take) -> None:
        self._take = take

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, list[dict[str, str]]]:
        deadline = _deadline(context)
        failed = [message["messageId"] for message in event["Records"] if not self._done(message, deadline)]
        return {"batchItemFailures": [{"itemIdentifier": each} for each in failed]}

    def _done(self, message: dict[str, Any], deadline: float | None) -> bool:
        if deadline is not None and time.monotonic() >= deadline:
            return False
        try:
            self._take(message["body"], int(message["attributes"]["ApproximateReceiveCount"]), deadline)
        except (StoreUnavailableError, TimeoutError, ValueError) as error:
            log.error("message %s of a batch comes again: %s %s", message["messageId"], type(error).__name__, error)
            return False
        except Exception as error:  # whatever is wrong with one is no other's; its message may hold a caller's text
            log.error("message %s of a batch comes again: %s", message["messageId"], type(error).__name__)
            return False
        return True


def _deadline(context: Any) -> float | None:
    if context is None:
        return None
    left = float(context.get_remaining_time_in_millis()) / 1000
    return time.monotonic() + left - min(_SPARE_S, left * _SPARE)
