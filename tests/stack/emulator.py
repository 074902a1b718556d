"""One Lambda execution environment on this machine: AWS's Runtime Interface Emulator (RIE) around a command."""

import contextlib
import http.client
import importlib.resources
import json
import os
import platform
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.stack.process import hold

EVENT_LIMIT = 6 * 1024 * 1024  # bytes of a synchronous call's JSON event; RIE would cut a longer one in silence
_PATIENCE_S = 15  # RIE itself ends a call at the function's timeout
_LISTEN_S = 60

_INIT_REPORT = re.compile(r"INIT REPORT\(durationMs: ([\d.]+)\)")
_INVOKE_DONE = re.compile(r"INVOKE RTDONE\(.*?duration: ([\d.]+)ms\)")


class InvocationError(Exception):
    """A call that got no answer from the handler; a function URL says 502 to its caller."""


class FunctionError(InvocationError):
    """The handler raised; `error_type` is the exception's class name, `error_message` its text."""

    def __init__(self, error_type: str, error_message: str) -> None:
        super().__init__(f"{error_type}: {error_message}")
        self.error_type, self.error_message = error_type, error_message


class FunctionTimeoutError(InvocationError):
    """The call took longer than the function's timeout. The environment is spent: RIE may fail its next call."""


class FunctionCrashError(InvocationError):
    """The runtime ended, could not start, or its answer was over the payload limit; the next call starts it anew."""


class Emulator:
    """One environment, thus one call at a time: further callers wait, because two calls at once crash RIE.

    `command` is what the image's entry point would run, found through `env["PATH"]`. The function sees `env` and what
    Lambda adds to it, nothing of this process's own environment. Its start (init) happens at the first call, and unlike
    Lambda RIE counts it in that call's timeout.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        cwd: Path,
        memory_mb: int = 3538,
        timeout_s: int = 30,
    ) -> None:
        self.command, self.cwd, self.timeout_s = list(command), cwd, timeout_s
        self.env = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_SESSION_TOKEN": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "LAMBDA_TASK_ROOT": str(cwd),
            **env,
            "AWS_EXECUTION_ENV": "AWS_Lambda_Image",
            "AWS_LAMBDA_FUNCTION_NAME": "emblet",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_mb),
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(timeout_s),
        }
        self._port = 0
        self._held: tuple[socket.socket, ...] = ()
        self._timed_out = False
        self._calls: AbstractContextManager[object] = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        # A file and not a pipe: a pipe that nobody reads stops the function when it is full.
        self._output = tempfile.TemporaryFile(mode="ab+")  # noqa: SIM115

    def start(self) -> Self:
        """Start RIE and return as soon as it listens, which is before the function's init."""
        self._held = hold(), hold()
        self._port, runtime_port = (int(each.getsockname()[1]) for each in self._held)
        addresses = ["--runtime-interface-emulator-address", f"127.0.0.1:{self._port}"]
        addresses += ["--runtime-api-address", f"127.0.0.1:{runtime_port}"]
        self._process = subprocess.Popen(
            self._line([_rie(), *addresses]),
            cwd=self.cwd,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
        )
        if self._listens():
            return self
        self.stop()
        raise RuntimeError(f"the emulator does not listen:\n{self.log}")

    def stop(self) -> None:
        """End RIE, the runtime and whatever these started."""
        if self._process:
            # RIE gives the runtime a process group of its own; the session is what they all share.
            while members := session(self._process.pid):
                for pid in members:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self._process.poll()
                time.sleep(0.001)
            self._process.wait()
        for each in self._held:
            each.close()

    def kill(self) -> None:
        """End the function where it is, as a process that runs out of memory ends; the next call starts it anew."""
        for pid in session(self.pid):
            if pid != self.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """Where RIE takes events as a POST with `content-type: application/json`; one at a time."""
        return f"http://127.0.0.1:{self._port}/2015-03-31/functions/function/invocations"

    @property
    def pid(self) -> int:
        """RIE's process id, which is its session's: the runtime starts in it, at the first call."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def usable(self) -> bool:
        """Whether a further call makes sense: RIE lives, and no call has timed out."""
        return self._process is not None and self._process.poll() is None and not self._timed_out

    @property
    def log(self) -> str:
        """What RIE and the function have written so far."""
        # pread leaves alone the offset that the processes share with us.
        return os.pread(self._output.fileno(), os.fstat(self._output.fileno()).st_size, 0).decode(errors="replace")

    @property
    def init_ms(self) -> float:
        """Duration of the latest init; LookupError where no call has caused one yet."""
        if not (reports := _INIT_REPORT.findall(self.log)):
            raise LookupError(f"no INIT REPORT in the log:\n{self.log}")
        return float(reports[-1])

    @property
    def invocations_ms(self) -> list[float]:
        """Duration of each call that was answered, in order, without the init before it."""
        return [float(each) for each in _INVOKE_DONE.findall(self.log)]

    def invoke(self, event: Any, *, request_id: str | None = None) -> Any:
        """The handler's decoded answer to `event`; InvocationError where it gave none, ValueError for over 6 MiB.

        An event of type bytes is JSON already. `request_id` is what the handler finds as `context.aws_request_id`.
        """
        payload = event if isinstance(event, bytes) else to_json(event)
        if len(payload) > EVENT_LIMIT:
            raise ValueError(f"the event is {len(payload)} bytes; Lambda takes {EVENT_LIMIT}")
        with self._calls:
            status, body = self._post(payload, request_id or str(uuid.uuid4()))
            if body.startswith(b"Task timed out after"):
                self._timed_out = True
                raise FunctionTimeoutError(body.decode())
        answer: Any = json.loads(body) if body else None
        failed = isinstance(answer, dict) and "errorType" in answer and "statusCode" not in answer
        if status != http.HTTPStatus.OK:
            what = f"{answer['errorType']}: {answer.get('errorMessage')}" if failed else f"{status} {body!r}"
            raise FunctionCrashError(f"{what}\n{self._tail()}")
        if failed:  # RIE answers 200 and without AWS's header X-Amz-Function-Error when the handler raises
            raise FunctionError(answer["errorType"], answer.get("errorMessage", ""))
        return answer

    def _line(self, rie: list[str]) -> list[str]:
        """What starts RIE, which starts the command."""
        return [*rie, *self.command]

    def _post(self, payload: bytes, request_id: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=self.timeout_s + _PATIENCE_S)
        headers = {"content-type": "application/json", "x-amzn-requestid": request_id}
        try:
            connection.request("POST", "/2015-03-31/functions/function/invocations", payload, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise FunctionCrashError(f"the emulator gave no answer: {error!r}\n{self._tail()}") from error
        finally:
            connection.close()

    def _tail(self) -> str:
        return "\n".join(self.log.splitlines()[-20:])

    def _listens(self) -> bool:
        end = time.monotonic() + _LISTEN_S
        while time.monotonic() < end and self._process and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
                return True
            time.sleep(0.005)
        return False


def to_json(event: Any) -> bytes:
    """The event as it travels: its length is what counts against EVENT_LIMIT."""
    return json.dumps(event, ensure_ascii=False).encode()


def _rie() -> str:
    machine = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return str(importlib.resources.files("samcli.local.rapid") / f"aws-lambda-rie-{machine}")


def session(leader: int) -> list[int]:
    """Processes of this session that have not ended yet."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # After the command's name in parentheses: state, parent, process group, session (man 5 proc).
                state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(session) == leader and state not in "ZX":
                    members.append(int(entry.name))
    return members
