"""How much of the machine's processors this container may use."""

import os
from collections.abc import Iterator
from pathlib import Path

from handler.settings import Settings

MB_PER_VCPU = 1769  # AWS Lambda developer guide, "Configure Lambda function memory"
_CGROUP, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def share(settings: Settings, cgroup: Path = _CGROUP, own: Path = _OWN) -> float:
    """vCPUs, at most those the process may run on: Lambda's by its memory, else the quota of cgroup v2 or v1, as on
    Managed Instances, which are containers with a ratio of their own.

    `os.cpu_count()` tells what is visible, which on Lambda and in most containers is more than what may be used.
    """
    visible = float(len(os.sched_getaffinity(0)))
    if settings.aws_lambda_function_memory_size and not settings.aws_lambda_max_concurrency:
        return min(visible, settings.aws_lambda_function_memory_size / MB_PER_VCPU)
    return min([visible, *_quotas(cgroup, own)])


def _quotas(cgroup: Path, own: Path) -> Iterator[float]:
    """vCPUs of each quota on the process: its own cgroup's and those of the cgroups around it. In a container the
    mount's root is the container's cgroup, and the path in /proc/self/cgroup may be the host's, of which nothing is
    visible."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    for controllers, path in ((line.split(":", 2)[1:]) for line in ["0::/", "1:cpu:/", *lines]):
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = cgroup / "cpu" if controllers else cgroup
        inside = mount / path.strip("/")
        for folder in (inside, *inside.parents):
            if folder.is_relative_to(mount) and (quota := _quota(folder)) is not None:
                yield quota


def _quota(folder: Path) -> float | None:
    """cpu.max of v2, or v1's two files: microseconds of CPU in a period of as many; `max` or -1 for no quota."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return int(quota) / int(period) if quota.isdigit() and int(period) else None
