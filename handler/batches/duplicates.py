"""Whether any of many names is there twice, in bounded memory: their hashes lie on disk, by their first byte."""

import hashlib
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

_ENTRY = struct.Struct("<16sQ")  # of 128 bits no two of 10^9 names are alike but by a chance of 10^-21
_BUCKETS = 256
_HELD = 32 << 10  # bytes of a bucket in memory: eight megabytes of all


class Names:
    """Names and the lines they are on. A context manager: what it has on disk goes with the block."""

    def __init__(self) -> None:
        self._held = [bytearray() for _ in range(_BUCKETS)]
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, name: str, line: int) -> None:
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        held = self._held[digest[0]]
        held += _ENTRY.pack(digest, line)
        if len(held) >= _HELD:
            with self._path(digest[0]).open("ab") as file:
                file.write(held)
            held.clear()

    def repeated(self) -> Iterator[tuple[int, int]]:
        """The lines whose name an earlier one has, each with the first that has it, in no order."""
        for bucket, held in enumerate(self._held):
            seen: dict[bytes, int] = {}
            for digest, line in self._entries(bucket, bytes(held)):
                first = seen.setdefault(digest, line)
                if first != line:
                    yield line, first

    def _entries(self, bucket: int, held: bytes) -> Iterator[tuple[bytes, int]]:
        """In the order of their lines."""
        if self._folder is not None and (path := self._path(bucket)).exists():
            with path.open("rb") as file:
                while piece := file.read(_ENTRY.size * 4096):
                    yield from _ENTRY.iter_unpack(piece)
        yield from _ENTRY.iter_unpack(held)

    def _path(self, bucket: int) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="names-")
        return Path(self._folder.name, f"{bucket:02x}")
