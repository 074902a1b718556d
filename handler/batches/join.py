"""Many pieces of objects made one object, by S3's multipart upload: small neighbours are gathered, large ones copied
where they lie.

A part has 5 MiB to 5 GiB, but the last; an upload 10,000 parts at most (S3 user guide, "Multipart upload limits").
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from handler import store
from handler.batches.bucket import Bucket, GoneError

PART = 5 << 20
_PIECES, _BYTES = 9000, 4 << 30  # that are joined at once; of more, groups of so many are joined first
_AHEAD = 8  # small pieces that are read while others are written


@dataclass(frozen=True)
class Piece:
    """The bytes of an object from `start` to before `end`."""

    key: str
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


class OutOfTimeError(Exception):
    """There is more to be joined than there was time for; what was done is found the next time."""


def join(bucket: Bucket, pieces: Iterable[Piece], key: str, between: str, is_over: Callable[[], bool]) -> int:
    """Make one object at `key` where there is none, of the pieces in order; its bytes. Of none, none is made.

    Whoever does it, and however often, the object is the same and made once. `between`: how the keys of groups begin.
    Raises OutOfTimeError once the time `is_over` between two groups, and StoreUnavailableError.
    """
    groups = _groups(piece for piece in pieces if piece.size)
    first = next(groups, None)
    if first is None:
        return 0
    second = next(groups, None)
    if second is None:
        return _once(bucket, first, key)
    joined = []
    for number, group in enumerate(_chained(first, second, groups)):
        if is_over():
            raise OutOfTimeError
        place = f"{between}{number:06}"
        joined.append(Piece(place, 0, _once(bucket, group, place)))
    return _once(bucket, joined, key)


def _chained(*heads: Any) -> Iterator[list[Piece]]:
    *some, rest = heads
    yield from some
    yield from rest


def _groups(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    group: list[Piece] = []
    size = 0
    for piece in pieces:
        if group and (len(group) == _PIECES or size + piece.size > _BYTES):
            yield group
            group, size = [], 0
        group.append(piece)
        size += piece.size
    if group:
        yield group


def _once(bucket: Bucket, pieces: list[Piece], key: str) -> int:
    size = sum(piece.size for piece in pieces)
    if bucket.size(key) is None:
        upload = _Upload(bucket, key)
        try:
            for part in _parts(bucket, pieces):
                upload.add(part)
            upload.complete()
        except BaseException:
            upload.abort()
            raise
    return size


def _parts(bucket: Bucket, pieces: list[Piece]) -> Iterator["bytes | Piece"]:
    """Parts in order: bytes, or a piece to be copied."""
    held = bytearray()
    for piece, small in _ahead(bucket, pieces):
        rest = piece
        if small is not None:
            held += small
        else:
            if held:  # what lacks to a part comes out of the large one
                rest = Piece(piece.key, piece.start + PART - len(held), piece.end)
                held += _read(bucket, Piece(piece.key, piece.start, rest.start))
                yield bytes(held)
                held.clear()
            if rest.size >= PART:
                yield rest
            else:
                held += _read(bucket, rest)
        if len(held) >= PART:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


def _ahead(bucket: Bucket, pieces: list[Piece]) -> Iterator[tuple[Piece, bytes | None]]:
    """The pieces, and of the small ones the bytes, some of them read beforehand."""
    waiting: deque[tuple[Piece, Future[bytes] | None]] = deque()
    with ThreadPoolExecutor(_AHEAD, "read") as pool:
        try:
            for piece in pieces:
                waiting.append((piece, pool.submit(_read, bucket, piece) if piece.size < PART else None))
                if len(waiting) == _AHEAD:
                    first, found = waiting.popleft()
                    yield first, None if found is None else found.result()
            while waiting:
                first, found = waiting.popleft()
                yield first, None if found is None else found.result()
        finally:
            for _, found in waiting:
                if found:
                    found.cancel()


def _read(bucket: Bucket, piece: Piece) -> bytes:
    return b"".join(bucket.read(piece.key, piece.start, piece.end)) if piece.size else b""


class _Upload:
    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket, self._parts = bucket, list[Any]()
        with bucket.told():
            upload = bucket.client().create_multipart_upload(Bucket=bucket.name, Key=key)["UploadId"]
        self._place: Any = {"Bucket": bucket.name, "Key": key, "UploadId": upload}

    def add(self, part: "bytes | Piece") -> None:
        number, client = len(self._parts) + 1, self._bucket.client()
        with self._bucket.told():
            if isinstance(part, bytes):
                tag = client.upload_part(**self._place, PartNumber=number, Body=part)["ETag"]
            else:
                tag = client.upload_part_copy(
                    **self._place,
                    PartNumber=number,
                    CopySource={"Bucket": self._bucket.name, "Key": part.key},
                    CopySourceRange=f"bytes={part.start}-{part.end - 1}",
                )["CopyPartResult"]["ETag"]
        self._parts.append({"PartNumber": number, "ETag": tag})

    def complete(self) -> None:
        """Where another has completed the same before, that one's stays."""
        with suppress(GoneError), self._bucket.told():
            self._bucket.client().complete_multipart_upload(
                **self._place, MultipartUpload={"Parts": self._parts}, IfNoneMatch="*"
            )
            return
        self.abort()

    def abort(self) -> None:
        """The bucket's own rule does it a day later, where it cannot be done now."""
        with suppress(GoneError, store.StoreUnavailableError), self._bucket.told():
            self._bucket.client().abort_multipart_upload(**self._place)
