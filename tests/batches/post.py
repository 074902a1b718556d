"""The door of messages in this process, on MiniStack: what it is sent, and what it leaves."""

import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

import boto3

from handler.events.messages import Messages
from tests.batches.works import MODEL
from tests.stack.queues import Queue

SENT_MS = int(time.time() * 1000)  # a message of last month would count on a month that may be forgotten


@dataclass
class Post:
    """The door, and what its messages leave."""

    door: Messages
    account: str
    bucket: str
    usage: str
    answers: Queue
    dead: Queue

    def message(self, text: Any = "the quick brown fox", **fields: Any) -> dict[str, Any]:
        said = {"account": self.account, "body": {"model": MODEL, "input": text, "encoding_format": "base64"}} | fields
        return record(json.dumps({name: value for name, value in said.items() if value is not None}))

    def take(self, *records: dict[str, Any], context: Any = None) -> list[str]:
        """The messages that have to come again."""
        return [each["itemIdentifier"] for each in self.door({"Records": records}, context)["batchItemFailures"]]

    def objects(self, prefix: str = "") -> list[dict[str, Any]]:
        """The answers in the bucket."""
        prefix = prefix or f"out/{self.account}/messages/"
        client = boto3.client("s3")
        keys = [each["Key"] for each in client.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", [])]
        return [json.loads(client.get_object(Bucket=self.bucket, Key=key)["Body"].read()) for key in keys]

    def records(self) -> list[dict[str, Any]]:
        pages = boto3.client("dynamodb").get_paginator("scan").paginate(TableName=self.usage)
        found = [item for page in pages for item in page["Items"]]
        return [item for item in found if str(item["pk"]["S"]).startswith(f"{self.account}#")]


def record(body: str) -> dict[str, Any]:
    attributes = {"ApproximateReceiveCount": "1", "SentTimestamp": str(SENT_MS)}
    return {"messageId": str(uuid.uuid4()), "body": body, "attributes": attributes}


class Context:
    """Of a call that has so many seconds left."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def get_remaining_time_in_millis(self) -> int:
        return int(self._seconds * 1000)
