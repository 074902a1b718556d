"""The door of a batch's own queues, of plans and of shards: messages that are pointers, each worked on for itself."""

import logging
import time
from collections.abc import Callable
from typing import Any

from handler.events import deadline
from handler.store import StoreUnavailableError

log = logging.getLogger(__name__)

Take = Callable[[str, int, float | None], None]
"""Work on a message's body that has been received so often, until a moment of time.monotonic() (None: for ever). Raises
StoreUnavailableError, TimeoutError or ValueError."""


class Pointers:
    """A door for events of SQS whose mapping has ReportBatchItemFailures. What fails comes again, in the end to the
    dead-letter queue; the log says why."""

    def __init__(self, take: Take) -> None:
        self._take = take

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, list[dict[str, str]]]:
        until = deadline.of(context)
        failed = [message["messageId"] for message in event["Records"] if not self._done(message, until)]
        return {"batchItemFailures": [{"itemIdentifier": each} for each in failed]}

    def _done(self, message: dict[str, Any], until: float | None) -> bool:
        if until is not None and time.monotonic() >= until:
            return False
        try:
            self._take(message["body"], int(message["attributes"]["ApproximateReceiveCount"]), until)
        except (StoreUnavailableError, TimeoutError, ValueError) as error:
            log.error("message %s of a batch comes again: %s %s", message["messageId"], type(error).__name__, error)
            return False
        except Exception as error:  # whatever is wrong with one is no other's; its message may hold a caller's text
            log.error("message %s of a batch comes again: %s", message["messageId"], type(error).__name__)
            return False
        return True
