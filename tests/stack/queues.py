"""Queues in AWS's stand-in, and the events that Lambda's event source mapping makes of their messages."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import boto3

Door = Callable[[dict[str, Any], Any], dict[str, list[dict[str, str]]]]


class Queue:
    """A new queue; `url` is what a function sends to."""

    def __init__(self) -> None:
        self._client: Any = boto3.client("sqs")
        name = f"tests-{uuid.uuid4().hex}"
        self.url: str = self._client.create_queue(QueueName=name)["QueueUrl"]

    def redrive_to(self, dead: "Queue") -> None:
        """What this queue gives up goes there."""
        arn = self._client.get_queue_attributes(QueueUrl=dead.url, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 100})
        self._client.set_queue_attributes(QueueUrl=self.url, Attributes={"RedrivePolicy": policy})

    def send(self, body: str) -> None:
        self._client.send_message(QueueUrl=self.url, MessageBody=body)

    def messages(self) -> list[dict[str, Any]]:
        """All that are there, as an event's records; they can be had again at once, and deleted until then."""
        found: list[dict[str, Any]] = []
        asked = {"MaxNumberOfMessages": 10, "VisibilityTimeout": 60, "AttributeNames": ["ApproximateReceiveCount"]}
        while new := self._client.receive_message(QueueUrl=self.url, **asked).get("Messages"):
            found += new
        for each in found:
            self._client.change_message_visibility(
                QueueUrl=self.url, ReceiptHandle=each["ReceiptHandle"], VisibilityTimeout=0
            )
        return [_record(each) for each in found]

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


def _record(message: dict[str, Any]) -> dict[str, Any]:
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": {"ApproximateReceiveCount": message["Attributes"]["ApproximateReceiveCount"]},
        "messageAttributes": {},
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:tests",
        "awsRegion": "us-east-1",
    }
