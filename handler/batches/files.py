"""Files: their rows in the Jobs table, their bytes in the results bucket."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from handler import store
from handler.batches.bucket import Bucket, GoneError
from handler.batches.rows import Row, Rows, new_id, row_key
from handler.contract import errors
from handler.contract.files import File, Page, Upload
from handler.results import VALID_S
from handler.settings import Settings

PREFIX = "files/"  # of what is uploaded
_PUT_S = 6 * 3600  # in which what was promised can be put


@dataclass(frozen=True)
class Slot:
    """Where the bytes of a promised file go: an address to PUT them to, with these headers."""

    url: str
    headers: dict[str, str]
    expires_at: int

    def wire(self) -> dict[str, Any]:
        return {"method": "PUT", "url": self.url, "headers": self.headers, "expires_at": self.expires_at}


class Files:
    """The files of all accounts. Every call raises StoreUnavailableError where a store cannot be reached."""

    def __init__(self, rows: Rows, bucket: Bucket, clock: Callable[[], float] = time.time) -> None:
        self.rows, self._bucket, self._clock = rows, bucket, clock

    @classmethod
    def open(cls, config: Settings) -> "Files":
        return cls(Rows(store.dynamodb, config.jobs_table), Bucket(store.s3, config.results_bucket))

    def put(self, account: str, upload: Upload, body: bytes) -> File:
        """A file of these bytes: put first, then known."""
        file = self._new(account, upload, len(body), "processed")
        with store.answering(self._bucket.name):
            self._bucket.client().put_object(Bucket=self._bucket.name, Key=file.key, Body=body)
        self.rows.put(row(file))
        return file

    def promise(self, account: str, upload: Upload) -> tuple[File, Slot]:
        """A file whose bytes its owner will put himself, so many and once."""
        assert upload.bytes is not None  # noqa: S101  (else they are here)
        file = self._new(account, upload, upload.bytes, "uploaded")
        # Signed, and so held to: a file does not change once a batch may have read it.
        once: Any = {"ContentLength": file.bytes, "IfNoneMatch": "*"}
        with store.answering(self._bucket.name):
            url = self._bucket.client().generate_presigned_url(
                "put_object", Params={"Bucket": self._bucket.name, "Key": file.key, **once}, ExpiresIn=_PUT_S
            )
        self.rows.put(row(file))
        headers = {"content-length": str(file.bytes), "if-none-match": "*"}
        return file, Slot(url, headers, file.created_at + _PUT_S)

    def find(self, account: str, file_id: str) -> File:
        """A file as it is now: a promised one is `processed` once its bytes are there. Raises 404."""
        found = self.rows.get(_partition(account), file_id)
        file = None if found is None else of(found)
        if file is None or file.expires_at <= self._clock():
            raise errors.NO_FILE.error(param="id", id=file_id)
        if file.status == "uploaded" and (size := self._bucket.size(file.key)) is not None:
            file = replace(file, status="processed", bytes=size)
            self._settle(file)
        return file

    def readable(self, account: str, file_id: str) -> File:
        """A file whose bytes are there. Raises 404."""
        file = self.find(account, file_id)
        if file.status == "uploaded":
            raise errors.NOT_PUT.error(param="id", id=file_id)
        return file

    def list(self, account: str, page: Page) -> tuple[list[File], bool]:
        """A page of an account's files, and whether there are more."""
        now, found = self._clock(), list[File]()
        size = min(page.limit + 1, 1000)
        for each in self.rows.pages(_partition(account), page.after, ascending=page.ascending, size=size):
            file = of(each)
            if file.expires_at > now and page.purpose in (None, file.purpose):
                if len(found) == page.limit:
                    return found, True
                found.append(file)
        return found, False

    def delete(self, account: str, file_id: str) -> None:
        """Forget a file and its bytes. Raises 404."""
        file = self.find(account, file_id)
        self.rows.delete(_partition(account), file_id)
        with store.answering(self._bucket.name):
            self._bucket.client().delete_object(Bucket=self._bucket.name, Key=file.key)

    def read(self, file: File) -> Iterator[bytes]:
        """Its bytes, some at a time. Raises 404 where there are none."""
        try:
            return self._bucket.read(file.key)
        except GoneError:
            raise errors.NO_FILE.error(param="id", id=file.id) from None

    def address(self, file: File) -> str:
        """Where its bytes can be had for some minutes without a key."""
        with store.answering(self._bucket.name):
            return self._bucket.client().generate_presigned_url(
                "get_object", Params={"Bucket": self._bucket.name, "Key": file.key}, ExpiresIn=VALID_S
            )

    def _new(self, account: str, upload: Upload, size: int, status: str) -> File:
        now = self._clock()
        file_id = new_id("file-", now)
        key = f"{PREFIX}{account}/{file_id}"
        expires_at = int(now) + upload.lasts_s
        return File(file_id, account, key, size, int(now), upload.filename, "batch", status, expires_at)

    def _settle(self, file: File) -> None:
        self.rows.update(
            {
                "Key": row_key(_partition(file.account), file.id),
                "UpdateExpression": "SET #status = :status, #bytes = :bytes",
                "ConditionExpression": "attribute_exists(pk)",  # it may have been deleted meanwhile
                "ExpressionAttributeNames": {"#status": "status", "#bytes": "bytes"},
                "ExpressionAttributeValues": {":status": {"S": file.status}, ":bytes": {"N": str(file.bytes)}},
            }
        )


def row(file: File) -> Row:
    """The row of a file, which DynamoDB forgets some time after it has expired."""
    return {
        **row_key(_partition(file.account), file.id),
        "account": {"S": file.account},
        "key": {"S": file.key},
        "bytes": {"N": str(file.bytes)},
        "created_at": {"N": str(file.created_at)},
        "filename": {"S": file.filename},
        "purpose": {"S": file.purpose},
        "status": {"S": file.status},
        "expires_at": {"N": str(file.expires_at)},
        "ttl": {"N": str(file.expires_at)},
    }


def of(found: Row) -> File:
    """The file of a row."""
    names = ("account", "key", "filename", "purpose", "status")
    words = {name: str(found[name]["S"]) for name in names}
    numbers = {name: int(found[name]["N"]) for name in ("bytes", "created_at", "expires_at")}
    return File(id=found["sk"]["S"], **words, **numbers)  # type: ignore[arg-type]


def _partition(account: str) -> str:
    return f"file#{account}"
