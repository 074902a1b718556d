"""Answers too large for their door: kept in the results bucket for a day, fetched from an address that needs no key."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from handler import store
from handler.contract.body import JSON

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

PREFIX = "answers/"  # what lies under it the bucket's own rule deletes after a day
VALID_S = 900  # of an address


@dataclass(frozen=True)
class Place:
    """Where an answer lies: its address, and the Unix second until which that opens it."""

    url: str
    expires_at: int


class Results:
    """The results bucket."""

    def __init__(self, client: Callable[[], "S3Client"], bucket: str, clock: Callable[[], float] = time.time) -> None:
        self._client, self._bucket, self._clock = client, bucket, clock

    def put(self, body: bytes, account: str, work_id: str) -> Place:
        """Store the bytes of an answer. The address is a presigned GET that signs `host` alone, so that any client can
        follow it. Raises StoreUnavailableError."""
        from botocore.exceptions import BotoCoreError, ClientError

        key = f"{PREFIX}{account}/{work_id}.json"
        try:
            client = self._client()
            client.put_object(Bucket=self._bucket, Key=key, Body=body, ContentType=JSON)
            expires_at = int(self._clock()) + VALID_S
            url = client.generate_presigned_url(
                "get_object", Params={"Bucket": self._bucket, "Key": key}, ExpiresIn=VALID_S
            )
        except (BotoCoreError, ClientError) as error:
            raise store.StoreUnavailableError(store.reason(error, self._bucket)) from error
        return Place(url, expires_at)
