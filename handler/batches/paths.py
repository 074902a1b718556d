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
    place(to)


def place(to: Path | None) -> None:
    """Whether what comes of a batch can lie at `to`, its errors beside it, and nothing is lost by that: of a batch that
    has no errors, those of an earlier one would be taken for its own. Raises PathError and OSError."""
    if to is None:
        return
    if not to.parent.is_dir():
        raise PathError(f"--to {to}: there is no folder {to.parent}: make it first")
    if to.is_dir():
        raise PathError(f"--to {to} is a folder: name a file in it, such as {to / 'vectors.jsonl'}")
    for path in (to, errors(to)):
        if path.exists():
            raise PathError(f"--to {to}: {path} is there already: move it away first, or name another")


def errors(to: Path) -> Path:
    """Where the errors of a batch lie whose output lies at `to`."""
    return to.with_name(f"{to.name}.errors")
