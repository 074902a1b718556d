"""AWS's services: clients made once a process, and what it means when one of them cannot be reached."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from handler import settings

if TYPE_CHECKING:
    from botocore.config import Config
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_s3 import S3Client

# A request waits at most this long for a table: two attempts of a second each, and botocore's pause between them.
TIMEOUT_S = 1.0
_ATTEMPTS = 2
_OBJECT_S = 20.0  # an object of 30 MB may take longer than a record
_CONNECTIONS = 64  # of a client that are kept, at least: more than a process of one call has under way
# What a record's attempts may take where the ledger queue stands behind them (handler/billing/budget.py): far longer
# than DynamoDB takes for nearly all, and not so long that there is no second one within the second.
_CONNECT_S, HURRIED_S = 0.25, 0.45

_making = threading.Lock()


class StoreUnavailableError(Exception):
    """DynamoDB, SQS or S3 did not answer, or answered with an error of its own, after all attempts."""


def dynamodb() -> "DynamoDBClient":
    """The process's DynamoDB client; safe for many threads. Region, credentials and endpoint are AWS's own settings."""
    with _making:  # a cache alone would let threads that come together make one each
        return _dynamodb()


@cache
def _dynamodb() -> "DynamoDBClient":
    client: DynamoDBClient = _client("dynamodb", _config(TIMEOUT_S))
    return client


def ledger() -> "DynamoDBClient":
    """The client that writes the ledger, as `dynamodb()`, but every call is one attempt: who records counts them."""
    with _making:
        return _ledger()


@cache
def _ledger() -> "DynamoDBClient":
    from botocore.config import Config

    config = settings.read()
    once = Config(retries={"mode": "standard", "total_max_attempts": 1})
    if config.ledger_queue and config.function_role == "embed":
        once = once.merge(Config(connect_timeout=_CONNECT_S, read_timeout=HURRIED_S))
    client: DynamoDBClient = _client("dynamodb", _config(TIMEOUT_S).merge(once))
    return client


def sqs() -> Any:
    """The process's SQS client, as `ledger()`; made when a record first has to wait."""
    with _making:
        return _sqs()


@cache
def _sqs() -> Any:
    from botocore.config import Config

    once = Config(
        retries={"mode": "standard", "total_max_attempts": 1}, connect_timeout=_CONNECT_S, read_timeout=HURRIED_S
    )
    return _client("sqs", _config(TIMEOUT_S).merge(once))


def queues() -> Any:
    """The process's SQS client where nobody waits, as `dynamodb()`."""
    with _making:
        return _queues()


@cache
def _queues() -> Any:
    return _client("sqs", _config(TIMEOUT_S))


def s3() -> "S3Client":
    """The process's S3 client, as `dynamodb()`; made when an answer or a batch first needs it."""
    with _making:
        return _s3()


@cache
def _s3() -> "S3Client":
    from botocore.config import Config

    # A bucket's own host name in its own Region: that of no other keeps a presigned address from being redirected.
    # A stand-in for AWS has one host name for all of them.
    ours = Config(
        signature_version="s3v4",
        s3={
            "addressing_style": "path" if settings.read().aws_endpoint_url else "virtual",
            "us_east_1_regional_endpoint": "regional",
        },
    )
    client: S3Client = _client("s3", _config(_OBJECT_S).merge(ours))
    return client


def _client(service: Any, config: "Config") -> Any:
    """Called with `_making` held."""
    import boto3

    client = boto3.client(service, region_name=settings.read().aws_region or None, config=config)
    # botocore makes the classes of a client's errors when one is first asked for. Threads that ask together would have
    # one each, and not know another's: a condition that failed would be an unknown error.
    _ = client.exceptions
    return client


def _config(read_s: float) -> "Config":
    from botocore.config import Config

    config = settings.read()
    connections = max(_CONNECTIONS, config.max_queue_requests, config.aws_lambda_max_concurrency)
    return Config(
        connect_timeout=TIMEOUT_S,
        read_timeout=read_s,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        tcp_keepalive=True,  # a frozen environment's idle connection is noticed sooner
        max_pool_connections=connections,  # what finds none makes one, a TLS handshake, and throws it away afterwards
    )


def reason(error: Exception, place: str) -> str:
    """An error of botocore's for the log: the service's code where it has one, and the table or bucket; no values."""
    response = getattr(error, "response", None) or {}
    return f"{response.get('Error', {}).get('Code') or type(error).__name__} on {place}"


@contextmanager
def answering(place: str) -> Iterator[None]:
    """What botocore raises within, over a table or bucket, leaves as StoreUnavailableError."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise StoreUnavailableError(reason(error, place)) from error
