"""What batches keep in the results bucket: reading a part of an object, and writing what is not there yet.

work/ACCOUNT/BATCH/plan-…         where its shards begin and end
work/ACCOUNT/BATCH/00000007       what came of a shard: its lines of output, then its lines of errors
work/ACCOUNT/BATCH/joined/…       such lines of many shards, where there are very many
out/ACCOUNT/BATCH_output.jsonl    and _error.jsonl: what its owner gets
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from handler import store
from handler.contract.batches import Batch

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_CHUNK = 1 << 20
_NOWHERE = ("404", "NoSuchKey", "NotFound")
_CHANGED = ("412", "PreconditionFailed")


class GoneError(Exception):
    """The object is not there, or not the one that it was."""


class Bucket:
    """The results bucket. Every call raises StoreUnavailableError where S3 cannot be reached."""

    def __init__(self, client: Callable[[], "S3Client"], name: str) -> None:
        self.client, self.name = client, name

    def read(self, key: str, start: int = 0, end: int | None = None, etag: str = "") -> Iterator[bytes]:
        """The bytes of an object, or from `start` to before `end`, some at a time. Raises GoneError, also where it has
        another tag than `etag`."""
        return self.stream(key, start, end, etag)[0]

    def stream(self, key: str, start: int = 0, end: int | None = None, etag: str = "") -> tuple[Iterator[bytes], str]:
        """As `read`, and the tag that it has."""
        asked: Any = {"IfMatch": etag} if etag else {}
        if start or end is not None:
            asked["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        with self.told():
            answer = self.client().get_object(Bucket=self.name, Key=key, **asked)
        return self._chunks(answer["Body"]), answer["ETag"]

    def head(self, key: str) -> Mapping[str, str] | None:
        """What is written of an object; None where there is none."""
        try:
            with self.told():
                return self.client().head_object(Bucket=self.name, Key=key)["Metadata"]
        except GoneError:
            return None

    def size(self, key: str) -> int | None:
        """How many bytes an object has; None where there is none."""
        try:
            with self.told():
                return int(self.client().head_object(Bucket=self.name, Key=key)["ContentLength"])
        except GoneError:
            return None

    def put_new(self, key: str, body: "bytes | IO[bytes]", told: Mapping[str, str]) -> bool:
        """Write an object where there is none; False where there is. A second attempt, after a lost answer, finds
        its own there: what is there, and not who has put it, is what counts."""
        try:
            with self.told():
                self.client().put_object(Bucket=self.name, Key=key, Body=body, Metadata=dict(told), IfNoneMatch="*")
        except GoneError:
            return False
        return True

    def _chunks(self, body: Any) -> Iterator[bytes]:
        with store.answering(self.name):
            yield from body.iter_chunks(_CHUNK)

    @contextmanager
    def told(self) -> Iterator[None]:
        """What S3 says of an object becomes GoneError, all else StoreUnavailableError."""
        from botocore.exceptions import ClientError

        with store.answering(self.name):
            try:
                yield
            except ClientError as error:
                if error.response["Error"]["Code"] in (*_NOWHERE, *_CHANGED):
                    raise GoneError(error.response["Error"]["Code"]) from None
                raise


def work(batch: Batch, name: str) -> str:
    """The key of what is kept while a batch is done."""
    return f"work/{batch.account}/{batch.id}/{name}"


def result(batch: Batch, shard: int) -> str:
    """The key of what came of a shard."""
    return work(batch, f"{shard:08}")
