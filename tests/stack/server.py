"""The service as the plain HTTP server that `handler/entry.sh` starts outside Lambda."""

import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.stack.process import Process, free_port


class PlainServer:
    """`.url` of a ready server; ends with the block."""

    def __init__(self, env: Mapping[str, str], house: Path, log: Path) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._env, self._house, self._log = env, house, log

    def __enter__(self) -> "PlainServer":
        env = {**self._env, "PORT": str(self._port)}
        self.process = Process(["sh", "handler/entry.sh"], env, self._house, self._log, f"{self.url}/ready")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.stop()

    @property
    def log(self) -> str:
        return self.process.log

    @property
    def whole_log(self) -> str:
        """With the line of every request that has been answered by now: it is written once the answer has left, but
        before anything else is read."""
        with urllib.request.urlopen(f"{self.url}/health", timeout=60) as answer:
            answer.read()
        return self.log
