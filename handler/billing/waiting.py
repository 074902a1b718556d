"""How many usage records wait to be written: in the ledger queue, and among those that it has given up."""

import json
from collections.abc import Callable
from typing import Any

from handler.store import answering

# Also those that are being written at the moment, which may fail.
_COUNTS = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


class Waiting:
    """The queue at `url`, and the dead-letter queue that its redrive policy names; without a `url`, nothing waits.

    SQS knows these numbers about a minute late: far sooner than an hour is closed.
    """

    def __init__(self, client: Callable[[], Any], url: str) -> None:
        self._client, self._url = client, url

    def __call__(self) -> int:
        """Raises StoreUnavailableError."""
        if not self._url:
            return 0
        count, policy = self._ask(self._url)
        if policy:
            # A dead-letter queue is in its queue's account and Region. What was moved back from there is in the queue.
            name = json.loads(policy)["deadLetterTargetArn"].rpartition(":")[2]
            count += self._ask(f"{self._url.rpartition('/')[0]}/{name}")[0]
            count = count or self._ask(self._url)[0]
        return count

    def _ask(self, url: str) -> tuple[int, str | None]:
        with answering("the ledger queue"):
            found = self._client().get_queue_attributes(QueueUrl=url, AttributeNames=[*_COUNTS, "RedrivePolicy"])
        told = found["Attributes"]
        return sum(int(told[name]) for name in _COUNTS), told.get("RedrivePolicy")
