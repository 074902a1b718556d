"""An execution environment of Lambda Managed Instances: the same emulator in its mode for several calls at once."""

import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from tests.stack.emulator import Emulator

_ATTEMPTS = 600

# In this mode RIE ignores its command line: it runs /opt/bootstrap in /var/task, as uid 993, in an environment where
# HOME, USER and LOGNAME are not set. A mount namespace gives it these, and lets that user see an interpreter in a
# folder that is closed to others.
_NAMESPACE = """
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir -p /mnt/opt /mnt/upper /mnt/work /mnt/home
printf '#!/bin/sh\\n%s\\n' "$BOOTSTRAP" >/mnt/opt/bootstrap
chmod 755 /mnt/opt/bootstrap
mount --bind /mnt/opt /opt
if [ -n "$CLOSED" ]; then
  mount --bind "$INSIDE" /mnt/home
  mount -t tmpfs -o mode=755 tmpfs "$CLOSED"
  mkdir -p "$INSIDE"
  mount --bind /mnt/home "$INSIDE"
fi
mount -t overlay overlay -o lowerdir=/var,upperdir=/mnt/upper,workdir=/mnt/work /var
mkdir -p /var/task
unset HOME USER LOGNAME BOOTSTRAP CLOSED INSIDE
exec "$@"
"""


@cache
def possible() -> bool:
    """Whether this user may make such a namespace, and become that user."""
    if os.getuid() != 0 or not (unshare := shutil.which("unshare")):
        return False
    mount = ["mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    done = subprocess.run([unshare, "--mount", "--propagation", "private", *mount], capture_output=True, check=False)
    return done.returncode == 0


class ManagedInstance(Emulator):
    """`concurrency` calls at once; init begins with `start`. `command` is run in `cwd`."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        cwd: Path,
        concurrency: int,
        memory_mb: int = 4096,
        timeout_s: int = 60,
    ) -> None:
        super().__init__(command, env, cwd=cwd, memory_mb=memory_mb, timeout_s=timeout_s)
        home = Path(sys.base_prefix)
        closed = [each for each in home.parents if not each.stat().st_mode & 0o001]
        self.env |= {
            "AWS_LAMBDA_MAX_CONCURRENCY": str(concurrency),
            "BOOTSTRAP": f"cd {shlex.quote(str(cwd))} && exec {shlex.join(command)}",
            "CLOSED": str(closed[-1]) if closed else "",
            "INSIDE": str(home),
        }
        self.concurrency = concurrency
        self._calls = threading.BoundedSemaphore(concurrency)

    def warm(self, event: Any) -> None:
        """Until as many calls of this event as may be are taken at once: one may be before all threads have asked."""
        with ThreadPoolExecutor() as callers:
            for _ in range(_ATTEMPTS):
                calls = [callers.submit(self.invoke, event) for _ in range(self.concurrency)]
                if not any(call.exception() for call in calls):
                    return
                time.sleep(0.1)
        raise RuntimeError(self.log)

    def _line(self, rie: list[str]) -> list[str]:
        unshare = shutil.which("unshare") or "unshare"
        return [unshare, "--mount", "--propagation", "private", "/bin/sh", "-euc", _NAMESPACE, "managed", *rie]
