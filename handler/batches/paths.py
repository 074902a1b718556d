"""The paths that a person at a terminal names, looked at before anything is sent."""

from pathlib import Path

from handler.contract.files import MAX_BYTES


class PathError(Exception):
    """A path is not what it must be; the message says what to do."""


def check(source: Path, to: Path | None) -> None:
    """Whether there are lines in `source`, and a place for what comes of them at `to`. Raises PathError and OSError."""
    if not source.exists():
        raise PathError(f"{source} is not there: name a .jsonl file with a request in each line")
    if not source.is_file():
        raise PathError(f"{source} is not a file: name a .jsonl file with a request in each line")
    size = source.stat().st_size
    if not size:
        raise PathError(f"{source} is empty: write a request in each line of it")
    if size > MAX_BYTES:
        raise PathError(f"{source} has {size:,} bytes, and a batch {MAX_BYTES:,} at most: cut it between two lines")
    if to is None:
        return
    if not to.parent.is_dir():
        raise PathError(f"--to {to}: there is no folder {to.parent}: make it first")
    if to.is_dir():
        raise PathError(f"--to {to} is a folder: name a file in it, such as {to / 'vectors.jsonl'}")
    if to.exists() and to.samefile(source):
        raise PathError(f"--to {to} is the file that is sent: name another, or it would be lost")
