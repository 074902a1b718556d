"""A queue, polled where there is no Lambda to do it: on one machine, for `make run`."""

import logging
import time
from collections.abc import Callable
from typing import Any, NoReturn

log = logging.getLogger(__name__)

_LEASE_S = 900  # longer than any message takes


class Poller:
    """Hands a door what arrives in a queue, each message in an event of its own, and deletes what it is done with. What
    the door fails at it gets again at once."""

    def __init__(self, url: str, door: Callable[[dict[str, Any], Any], dict[str, list[dict[str, str]]]]) -> None:
        import boto3

        self._client: Any = boto3.client("sqs")
        self._url, self._door = url, door

    def run(self) -> NoReturn:
        """Poll for ever, whatever happens."""
        while True:
            try:
                self.poll(wait_s=5)
            except Exception as error:
                log.debug("queue not read: %s", error)
                time.sleep(1)

    def poll(self, wait_s: int = 0) -> int:
        """How many messages the door is done with."""
        answer = self._client.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=1,
            WaitTimeSeconds=wait_s,
            VisibilityTimeout=_LEASE_S,
            AttributeNames=["All"],
        )
        done = 0
        for message in answer.get("Messages", []):
            record = {
                "messageId": message["MessageId"],
                "body": message["Body"],
                "attributes": message["Attributes"],
                "eventSource": "aws:sqs",
                "eventSourceARN": f"arn:aws:sqs:local:000000000000:{self._url.rpartition('/')[2]}",
            }
            handle = {"QueueUrl": self._url, "ReceiptHandle": message["ReceiptHandle"]}
            if self._door({"Records": [record]}, None)["batchItemFailures"]:
                self._client.change_message_visibility(**handle, VisibilityTimeout=1)
            else:
                self._client.delete_message(**handle)
                done += 1
        return done
