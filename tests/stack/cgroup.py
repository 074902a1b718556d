"""A share of the machine's processors for a process and all it starts, as Lambda's memory setting or a container's
limit gives it; where this user may make a cgroup."""

import contextlib
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_V1, _V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
PERIOD_US = 100_000
_LEAVE_S = 5


@contextmanager
def limited(cpus: float) -> Iterator[Path | None]:
    """A cgroup with this many vCPUs, into whose `cgroup.procs` a process id is to be written; None where none can be
    made."""
    v1 = _V1.is_dir()
    folder = (_V1 if v1 else _V2) / f"emblet-{uuid.uuid4().hex}"
    try:
        folder.mkdir()
        quota = str(round(cpus * PERIOD_US))
        if v1:
            (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (folder / "cpu.cfs_quota_us").write_text(quota)
        else:
            (folder / "cpu.max").write_text(f"{quota} {PERIOD_US}")
    except OSError:
        with contextlib.suppress(OSError):
            folder.rmdir()
        yield None
        return
    try:
        yield folder
    finally:
        end = time.monotonic() + _LEAVE_S
        while folder.exists() and time.monotonic() < end:  # whoever was in it has ended, and is still leaving
            with contextlib.suppress(OSError):
                folder.rmdir()
            time.sleep(0.01)


def join(folder: Path, pid: int) -> None:
    (folder / "cgroup.procs").write_text(str(pid))
