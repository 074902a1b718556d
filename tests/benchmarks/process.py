"""A worker's process, seen from the benchmark. It runs while it is asked and is halted in between: a pool of threads
that spins for its next work, or a thread that polls, takes nothing from the others' turns."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

HOUSE = Path(__file__).resolve().parent.parent.parent

Matrix = npt.NDArray[np.float32]

# Nothing is fetched, nothing reported: whatever tries meets a port that refuses.
_OFFLINE = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "true",
}


class WorkerError(Exception):
    """A worker has ended before it was told to; the message is the last that it wrote."""


@dataclass(frozen=True)
class Pass:
    """Seconds of encoding the load once. `memory`: the most that the process had meanwhile, in bytes."""

    seconds: float
    cpu_seconds: float
    memory: int


class Worker:
    """`environment`: a folder of .venv-peers, or None for our own environment."""

    def __init__(self, environment: str | None, module: str, options: dict[str, Any], log: Path) -> None:
        self._log, start = log, time.perf_counter()
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                _call(environment, module),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=HOUSE,
                env=_environ(options["threads"]),
            )
        self._send(options)
        self._answer()
        self.start_seconds = time.perf_counter() - start

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def give(self, texts: list[list[int]]) -> None:
        self._ask({"texts": texts})

    def encode(self, batch: int) -> Pass:
        """Encode what was given, over and over while a pass is short."""
        folder = Path(f"/proc/{self.pid}")
        with suppress(OSError):  # some kernels have none: then it is the peak since the start
            (folder / "clear_refs").write_text("5")  # from here on: Documentation/filesystems/proc.rst
        before = _cpu_seconds(folder)
        times, seconds = self._ask({"pass": batch})
        [peak] = (line for line in (folder / "status").read_text().splitlines() if line.startswith("VmHWM"))
        return Pass(seconds / times, (_cpu_seconds(folder) - before) / times, int(peak.split()[1]) * 1024)

    def vectors(self, batch: int, count: int) -> Matrix:
        text = self._ask({"vectors": batch})
        return np.frombuffer(base64.b64decode(text), np.float32).reshape(count, -1)

    def _ask(self, question: dict[str, Any]) -> Any:
        self._process.send_signal(signal.SIGCONT)
        self._send(question)
        return self._answer()

    def _send(self, question: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says why

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise WorkerError(_ending(code, self._log))
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)  # until it has stopped
        [value] = json.loads(line).values()
        return value


def prepare(environment: str | None, module: str, options: dict[str, Any], log: Path) -> None:
    """Have a worker make the files that a peer loads. Raises WorkerError."""
    with log.open("w") as errors:
        done = subprocess.run(
            [*_call(environment, module), "prepare"],
            input=json.dumps(options) + "\n",
            stdout=errors,
            stderr=errors,
            text=True,
            cwd=HOUSE,
            env=_environ(options["threads"]),
            check=False,
        )
    if done.returncode:
        raise WorkerError(_ending(done.returncode, log))


def python(environment: str | None) -> Path:
    return HOUSE / ".venv-peers" / environment / "bin/python" if environment else Path(sys.executable)


def _cpu_seconds(folder: Path) -> float:
    """Of all threads of a process, by its folder in /proc, in steps of 10 ms."""
    user, system = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _ending(code: int, log: Path) -> str:
    """Why a worker has ended: the last line that it wrote, if it was not killed."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    lines = [line.strip() for line in log.read_text().splitlines() if line.strip()]
    return lines[-1] if lines else f"exit status {code}"


def _call(environment: str | None, module: str) -> list[str]:
    if not python(environment).exists():
        raise WorkerError(f"`make .venv-peers/{environment}/ready` makes its environment")
    return [str(python(environment)), "-m", f"tests.benchmarks.workers.{module}"]


def _environ(threads: int) -> dict[str, str]:
    # Passive: beside anything else that runs, threads of OpenMP (torch) that spin at barriers were ten times as slow.
    return {**os.environ, **_OFFLINE, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
