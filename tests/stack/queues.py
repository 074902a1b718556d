"""Queues in AWS's stand-in, and the events that Lambda's event source mapping makes of their messages."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import boto3

Door = Callable[[dict[str, Any], Any], dict[str, list[dict[str, str]]]]


class Queue:
    """A new queue; `url` is what a function sends to, `hidden_s`: how long it hides what it has given out; `fifo`:
    whether it keeps the order of its messages."""

    def __init__(self, hidden_s: int = 30, *, fifo: bool = False) -> None:
        self._client: Any = boto3.client("sqs")
        name, attributes = f"tests-{uuid.uuid4().hex}", {"VisibilityTimeout": str(hidden_s)}
        if fifo:
            name, attributes = f"{name}.fifo", attributes | {"FifoQueue": "true"}
        self.url: str = self._client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]

    def redrive_to(self, dead: "Queue", after: int = 100) -> None:
        """What this queue has given out `after` times goes there."""
        policy = json.dumps({"deadLetterTargetArn": dead._attributes()["QueueArn"], "maxReceiveCount": after})
        self._client.set_queue_attributes(QueueUrl=self.url, Attributes={"RedrivePolicy": policy})

    @property
    def size(self) -> int:
        """How many messages there are, with those that are hidden."""
        found = self._attributes()  # in one call: between two, one that was hidden may be seen
        return sum(int(found[f"ApproximateNumberOfMessages{which}"]) for which in ("", "NotVisible"))

    def _attributes(self) -> dict[str, str]:
        found: dict[str, str] = self._client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])[
            "Attributes"
        ]
        return found

    def receive(self, most: int = 1) -> list[dict[str, Any]]:
        """As an event source mapping receives: what is given out is hidden, counted, and in the end given up."""
        asked = {"MaxNumberOfMessages": most, "AttributeNames": ["All"]}
        found = self._client.receive_message(QueueUrl=self.url, **asked).get("Messages", [])
        return [self._record(each) for each in found]

    def send(self, body: str) -> None:
        self._client.send_message(QueueUrl=self.url, MessageBody=body)

    def messages(self) -> list[dict[str, Any]]:
        """All that are there, as an event's records; they can be had again at once, and deleted until then."""
        found: list[dict[str, Any]] = []
        asked = {"MaxNumberOfMessages": 10, "VisibilityTimeout": 60, "AttributeNames": ["All"]}
        while new := self._client.receive_message(QueueUrl=self.url, **asked).get("Messages"):
            found += new
        for each in found:
            self._client.change_message_visibility(
                QueueUrl=self.url, ReceiptHandle=each["ReceiptHandle"], VisibilityTimeout=0
            )
        return [self._record(each) for each in found]

    def delete(self, message: dict[str, Any]) -> None:
        """Remove one of `messages`."""
        self._client.delete_message(QueueUrl=self.url, ReceiptHandle=message["receiptHandle"])

    def deliver(self, door: Door) -> int:
        """Give all messages to a door, and delete those that it is done with; how many those are."""
        if not (messages := self.messages()):
            return 0
        failed = {each["itemIdentifier"] for each in door({"Records": messages}, None)["batchItemFailures"]}
        done = [each for each in messages if each["messageId"] not in failed]
        for each in done:
            self.delete(each)
        return len(done)

    def _record(self, message: dict[str, Any]) -> dict[str, Any]:
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message["Attributes"],
            "messageAttributes": {},
            "eventSource": "aws:sqs",
            "eventSourceARN": f"arn:aws:sqs:us-east-1:000000000000:{self.url.rpartition('/')[2]}",
            "awsRegion": "us-east-1",
        }
