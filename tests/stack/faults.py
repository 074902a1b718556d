"""Faults that no emulator of DynamoDB has, put into botocore: refusals, and answers lost after the work was done."""

import io
import itertools
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import boto3
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config
from botocore.httpsession import URLLib3Session

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient


class _Raw(io.BytesIO):
    """What botocore reads a response's body from."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


def client(operation: str, times: int, *, code: str, status: int, done: bool, attempts: int = 2) -> "DynamoDBClient":
    """A client whose first `times` attempts of an operation are answered with this error; `done`: after DynamoDB has
    carried them out."""
    body = b'{"__type":"com.amazonaws.dynamodb.v20120810#%s"}' % code.encode()
    return _client(operation, times, status, body, done=done, attempts=attempts)


def lossy(times: int) -> "Callable[[], DynamoDBClient]":
    """A client whose first updates' answers are lost."""
    made = client("UpdateItem", times, code="InternalServerError", status=500, done=True)
    return lambda: made


def cancelled(times: int, *reasons: str) -> "DynamoDBClient":
    """A client whose first `times` transactions are cancelled, their parts for these reasons each."""
    parts = json.dumps([{"Code": reason} for reason in reasons]).encode()
    body = b'{"__type":"x#TransactionCanceledException","CancellationReasons":%s}' % parts
    return _client("TransactWriteItems", times, 400, body)


def _client(
    operation: str, times: int, status: int, body: bytes, *, done: bool = False, attempts: int = 1
) -> "DynamoDBClient":
    config = Config(retries={"mode": "standard", "total_max_attempts": attempts})
    made = boto3.client("dynamodb", config=config)
    left = itertools.count(times, -1)

    def answer(request: Any, **_: Any) -> AWSResponse | None:  # None lets the call through
        if next(left) <= 0:
            return None
        if done:
            URLLib3Session().send(request)
        return AWSResponse(request.url, status, HTTPHeaders(), _Raw(body))

    made.meta.events.register(f"before-send.dynamodb.{operation}", cast(Any, answer))
    return made
