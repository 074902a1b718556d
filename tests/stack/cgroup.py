"""A share of the machine's processors and memory for a process and all it starts, as Lambda's memory setting or a
container's limit gives it; where this user may make a cgroup."""

import contextlib
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
PERIOD_US = 100_000
_MIB = 1 << 20
_LEAVE_S = 5

Group = list[Path]  # its folder; of version 1, one in each controller's


@contextmanager
def limited(cpus: float, memory_mb: int | None = None) -> Iterator[Group | None]:
    """A cgroup with this many vCPUs and this much memory, where it is given, for processes to `join`; None where none
    can be made."""
    name, group = f"emblet-{uuid.uuid4().hex}", []
    try:
        for controller, files in _limits(cpus, memory_mb).items():
            folder = _ROOT / controller / name
            folder.mkdir()
            group.append(folder)
            for file, text in files.items():
                (folder / file).write_text(text)
    except OSError:
        _remove(group)
        yield None
        return
    try:
        yield group
    finally:
        end = time.monotonic() + _LEAVE_S
        while any(folder.exists() for folder in group) and time.monotonic() < end:
            _remove(group)  # whoever was in it has ended, and is still leaving
            time.sleep(0.01)


def _limits(cpus: float, memory_mb: int | None) -> Mapping[str, Mapping[str, str]]:
    """By controller, of which version 2 has none, what to write into which file; in the order that version 1 asks."""
    quota, memory = str(round(cpus * PERIOD_US)), str((memory_mb or 0) * _MIB)
    if (_ROOT / "cpu").is_dir():
        found = {"cpu": {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": quota}}
        return found if memory_mb is None else {**found, "memory": {"memory.limit_in_bytes": memory}}
    return {"": {"cpu.max": f"{quota} {PERIOD_US}"} | ({} if memory_mb is None else {"memory.max": memory})}


def _remove(group: Group) -> None:
    for folder in group:
        with contextlib.suppress(OSError):
            folder.rmdir()


def join(group: Group, pid: int) -> None:
    for folder in group:
        (folder / "cgroup.procs").write_text(str(pid))
