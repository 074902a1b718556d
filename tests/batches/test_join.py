"""Many results made one object: within S3's limits, in order, once."""

import random
import threading
from typing import Any

import boto3
import pytest

from handler.batches import join as module
from handler.batches.bucket import Bucket
from handler.batches.join import OutOfTimeError, Piece, join

MIB = 1 << 20
LEAST, MOST = 5 * MIB, 5 << 30  # bytes of a part, but the last (S3 user guide, "Multipart upload limits")


class Parts(Bucket):
    """The bucket, the keys of its uploads, and the sizes of their parts, which the emulator does not look at."""

    def __init__(self, name: str) -> None:
        self._sizes: dict[str, dict[int, int]] = {}
        inner = boto3.client("s3")
        inner.meta.events.register("provide-client-params.s3.CreateMultipartUpload", self._begun)
        inner.meta.events.register("provide-client-params.s3.UploadPart", self._put)
        inner.meta.events.register("provide-client-params.s3.UploadPartCopy", self._copied)
        super().__init__(lambda: inner, name)
        self.uploads: list[str] = []
        self.copied = 0
        self.meeting: threading.Barrier | None = None  # of parts that are copied

    @property
    def sizes(self) -> dict[str, list[int]]:
        """By key, in the order of the parts."""
        return {key: [size for _, size in sorted(sizes.items())] for key, sizes in self._sizes.items()}

    def _begun(self, params: dict[str, Any], **_: Any) -> None:
        self.uploads.append(params["Key"])

    def _put(self, params: dict[str, Any], **_: Any) -> None:
        self._sizes.setdefault(params["Key"], {})[params["PartNumber"]] = len(params["Body"])

    def _copied(self, params: dict[str, Any], **_: Any) -> None:
        start, _, end = params["CopySourceRange"].removeprefix("bytes=").partition("-")
        self.copied += 1
        self._sizes.setdefault(params["Key"], {})[params["PartNumber"]] = int(end) - int(start) + 1
        if self.meeting is not None:
            self.meeting.wait(10)


@pytest.fixture
def parts(bucket: str) -> Parts:
    return Parts(bucket)


def pieces(parts: Parts, name: str, sizes: list[int]) -> tuple[list[Piece], bytes]:
    """Results with a byte more on either side, and what they are together."""
    chance, found, whole = random.Random(len(sizes)), list[Piece](), b""
    for number, size in enumerate(sizes):
        body, key = chance.randbytes(size), f"work/{name}/{number}"
        parts.client().put_object(Bucket=parts.name, Key=key, Body=b"<" + body + b">")
        found.append(Piece(key, 1, 1 + size))
        whole += body
    return found, whole


def content(parts: Parts, key: str) -> bytes:
    body: bytes = parts.client().get_object(Bucket=parts.name, Key=key)["Body"].read()
    return body


def never() -> bool:
    return False


SIZES = {
    "one": [1],
    "small": [1000] * 40,
    "large": [6 * MIB, 7 * MIB],
    "exact": [LEAST, LEAST],
    "mixed": [1, 12 * MIB, 3 * MIB, 0, 3 * MIB, 6 * MIB, 10, 5 * MIB, 4 * MIB, 11 * MIB, 7],
    "many": [MIB + n for n in range(20)],
}


@pytest.mark.parametrize("name", SIZES)
def test_a_joined_object_is_its_pieces_in_order_in_parts_that_s3_takes(parts: Parts, name: str) -> None:
    found, whole = pieces(parts, f"join-{name}", SIZES[name])
    key = f"out/join-{name}"
    assert join(parts, found, key, f"work/{name}/joined/", never) == len(whole)
    assert content(parts, key) == whole
    *body, last = parts.sizes[key]
    assert all(LEAST <= size <= MOST for size in body)
    assert 0 < last <= MOST
    assert len(body) < 10_000


def test_large_pieces_are_copied_where_they_lie(parts: Parts) -> None:
    found, _ = pieces(parts, "join-copied", [6 * MIB, 7 * MIB, 100])
    join(parts, found, "out/join-copied", "work/copied/", never)
    assert parts.copied == 2


def test_large_pieces_are_copied_at_once(parts: Parts) -> None:
    """One after the other, those of the largest outputs took longer than the function has."""
    found, whole = pieces(parts, "join-at-once", [6 * MIB] * 4)
    parts.meeting = threading.Barrier(4)
    assert join(parts, found, "out/join-at-once", "work/at-once/", never) == len(whole)
    assert content(parts, "out/join-at-once") == whole


def test_of_nothing_no_object_is_made(parts: Parts) -> None:
    assert join(parts, [Piece("work/none", 0, 0)], "out/join-none", "work/none/", never) == 0
    assert parts.size("out/join-none") is None


def test_what_is_joined_is_joined_once(parts: Parts) -> None:
    found, whole = pieces(parts, "join-once", [1000, 2000])
    for _ in range(2):
        assert join(parts, found, "out/join-once", "work/once/", never) == 3000
    assert parts.uploads == ["out/join-once"]
    assert content(parts, "out/join-once") == whole


def test_of_two_that_join_at_once_the_first_to_end_has_made_it(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    found, whole = pieces(parts, "join-twice", [1000, 2000])
    others, _ = pieces(parts, "join-twice-otherwise", [2000, 600, 400])  # by which the second is told from the first
    looked = parts.size
    monkeypatch.setattr(parts, "size", lambda _: None)  # each has looked before the other was done
    for each in (found, others):
        assert join(parts, each, "out/join-twice", "work/twice/", never) == 3000
    assert parts.uploads == ["out/join-twice"] * 2
    assert looked("out/join-twice") == 3000
    assert content(parts, "out/join-twice") == whole
    uploads = parts.client().list_multipart_uploads(Bucket=parts.name).get("Uploads", [])
    assert [each for each in uploads if each["Key"] == "out/join-twice"] == []


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIECES", 4)


@pytest.mark.usefixtures("small_groups")
def test_very_many_pieces_are_joined_in_groups_first(parts: Parts) -> None:
    found, whole = pieces(parts, "join-groups", [2 * MIB] * 14)
    assert join(parts, found, "out/join-groups", "work/groups/", never) == len(whole)
    assert content(parts, "out/join-groups") == whole
    assert len([key for key in parts.sizes if key.startswith("work/groups/")]) == 4
    for *body, _ in parts.sizes.values():
        assert all(size >= LEAST for size in body)


def test_a_group_has_no_more_bytes_than_a_part_that_is_copied(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    assert module._BYTES <= MOST
    monkeypatch.setattr(module, "_BYTES", 12 * MIB)
    found, whole = pieces(parts, "join-bytes", [2 * MIB] * 14)
    assert join(parts, found, "out/join-bytes", "work/bytes/", never) == len(whole)
    assert [parts.size(f"work/bytes/{group:06}") for group in range(3)] == [12 * MIB, 12 * MIB, 4 * MIB]
    assert content(parts, "out/join-bytes") == whole


@pytest.mark.usefixtures("small_groups")
def test_what_there_was_no_time_for_goes_on_where_it_was(parts: Parts) -> None:
    found, whole = pieces(parts, "join-time", [100] * 10)
    spent = iter([False, True])
    with pytest.raises(OutOfTimeError):
        join(parts, found, "out/join-time", "work/time/", lambda: next(spent))
    assert (parts.size("work/time/000000"), parts.size("work/time/000001")) == (400, None)
    assert join(parts, found, "out/join-time", "work/time/", never) == len(whole)
    assert parts.uploads.count("work/time/000000") == 1, "a group that is there is not made again"
    assert content(parts, "out/join-time") == whole
