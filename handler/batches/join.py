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
_COPIES = 16  # parts that S3 copies at once: one of 4 GiB takes it some 20 s, and a large output has a hundred


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
    """Its parts are written one after the other, and copied beside that. `complete` or `abort` ends it."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket, self._parts = bucket, list[Future[str] | str]()
        with bucket.told():
            upload = bucket.client().create_multipart_upload(Bucket=bucket.name, Key=key)["UploadId"]
        self._place: Any = {"Bucket": bucket.name, "Key": key, "UploadId": upload}
        self._copying = ThreadPoolExecutor(_COPIES, "copy")

    def add(self, part: "bytes | Piece") -> None:
        number = len(self._parts) + 1
        if isinstance(part, bytes):
            with self._bucket.told():
                answer = self._bucket.client().upload_part(**self._place, PartNumber=number, Body=part)
            self._parts.append(answer["ETag"])
        else:
            self._parts.append(self._copying.submit(self._copy, number, part))

    def complete(self) -> None:
        """Where another has completed the same before, that one's stays."""
        tags = [part if isinstance(part, str) else part.result() for part in self._parts]
        parts: Any = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
        with suppress(GoneError), self._bucket.told():
            self._bucket.client().complete_multipart_upload(
                **self._place, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
            )
            self._copying.shutdown()
            return
        self.abort()

    def abort(self) -> None:
        """The bucket's own rule does it a day later, where it cannot be done now."""
        self._copying.shutdown(cancel_futures=True)
        with suppress(GoneError, store.StoreUnavailableError), self._bucket.told():
            self._bucket.client().abort_multipart_upload(**self._place)

    def _copy(self, number: int, piece: Piece) -> str:
        with self._bucket.told():
            answer = self._bucket.client().upload_part_copy(
                **self._place,
                PartNumber=number,
                CopySource={"Bucket": self._bucket.name, "Key": piece.key},
                CopySourceRange=f"bytes={piece.start}-{piece.end - 1}",
            )
        return answer["CopyPartResult"]["ETag"]
