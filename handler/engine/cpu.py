"""How much of the machine's processors this container may use."""

import os
from pathlib import Path

from handler.settings import Settings

MB_PER_VCPU = 1769  # AWS Lambda developer guide, "Configure Lambda function memory"
_CGROUP = Path("/sys/fs/cgroup")


def share(settings: Settings, cgroup: Path = _CGROUP) -> float:
    """vCPUs, at most those the process may run on: Lambda's by its memory, else the quota of cgroup v2 or v1.

    `os.cpu_count()` tells what is visible, which on Lambda and in most containers is more than what may be used.
    """
    visible = float(len(os.sched_getaffinity(0)))
    if settings.aws_lambda_function_memory_size:
        return min(visible, settings.aws_lambda_function_memory_size / MB_PER_VCPU)
    return min(visible, _quota(cgroup) or visible)


def _quota(cgroup: Path) -> float | None:
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return int(quota) / int(period) if quota.isdigit() and int(period) else None  # "max" or -1: none
