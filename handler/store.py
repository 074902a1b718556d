"""AWS's services: clients made once a process, and what it means when one of them cannot be reached."""

import threading
from functools import cache
from typing import TYPE_CHECKING

from handler import settings

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

# A request waits at most this long for a table: two attempts of a second each, and botocore's pause between them.
TIMEOUT_S = 1.0
_ATTEMPTS = 2

_making = threading.Lock()


class StoreUnavailableError(Exception):
    """DynamoDB did not answer, or answered with an error of its own, after all attempts."""


def dynamodb() -> "DynamoDBClient":
    """The process's DynamoDB client; safe for many threads. Region, credentials and endpoint are AWS's own settings."""
    with _making:  # a cache alone would let threads that come together make one each
        return _dynamodb()


@cache
def _dynamodb() -> "DynamoDBClient":
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=TIMEOUT_S,
        read_timeout=TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        tcp_keepalive=True,  # a frozen environment's idle connection is noticed sooner
        max_pool_connections=64,
    )
    return boto3.client("dynamodb", region_name=settings.read().aws_region or None, config=config)


def reason(error: Exception, table: str) -> str:
    """An error of botocore's for the log: the service's code where it has one, and the table; no values."""
    response = getattr(error, "response", None) or {}
    return f"{response.get('Error', {}).get('Code') or type(error).__name__} on table {table}"
