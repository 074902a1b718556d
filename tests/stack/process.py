"""A server in a process of its own: started on a free port, waited for, ended with all it started."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

_held: list[socket.socket] = []


def free_port() -> int:
    """A port as `hold` has it, for as long as this process runs."""
    _held.append(hold())
    return int(_held[-1].getsockname()[1])


def hold() -> socket.socket:
    """A loopback port that the system gives to nobody else while this is open. Nothing listens on it before a server
    does, which may: servers set SO_REUSEADDR, and with it Linux shares a port until one of its sockets listens."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


class Process:
    """`command` with `env`, its output in the file `log`; ready once GET `url` answers 200."""

    def __init__(self, command: list[str], env: dict[str, str], cwd: Path, log: Path, url: str) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, env=env, cwd=cwd, stdout=output, stderr=output, start_new_session=True
            )
        try:
            self._wait(url)
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def _wait(self, url: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self._process.poll() is None, f"ended with {self._process.returncode}:\n{self.log}"
            with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"{url} does not answer:\n{self.log}")

    def stop(self) -> int:
        """SIGTERM, then SIGKILL after ten seconds; the exit status."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        return self._process.returncode
