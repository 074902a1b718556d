"""A client of DynamoDB for many callers at once, who keep an emulator busy for longer than a request would wait."""

from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient


def client(callers: int) -> "DynamoDBClient":
    """For so many threads. It waits for each answer, where `store.dynamodb` would ask again after a second, so that
    what is only late would be counted twice."""
    once = {"mode": "standard", "total_max_attempts": 1}
    config = Config(read_timeout=60, max_pool_connections=callers, retries=once)  # type: ignore[arg-type]
    made = boto3.client("dynamodb", config=config)
    _ = made.exceptions  # as handler/store.py has it: threads that asked for them together would have some each
    return made
