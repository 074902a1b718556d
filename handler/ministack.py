"""MiniStack, the stand-in for AWS of a service on one machine, from an environment of its own: it pins botocore."""

import contextlib
import ctypes
import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_HOUSE = Path(__file__).resolve().parent.parent
_PROGRAM = _HOUSE / ".venv-ministack/bin/ministack"


class MiniStackError(Exception):
    """It is not there, or does not start; the message says what to do."""


@contextlib.contextmanager
def started() -> Iterator[str]:
    """The endpoint of a MiniStack on a free loopback port, ended with the block, and also if this process is killed."""
    if not _PROGRAM.is_file():
        raise MiniStackError(f"{_PROGRAM.relative_to(_HOUSE)} is not there: `make run` makes its environment.")
    with (
        socket.socket() as held,
        tempfile.TemporaryDirectory(prefix="emblet-") as folder,
        tempfile.TemporaryFile() as output,
    ):
        # Nobody else is given the port, and MiniStack, which says the same, can listen on it.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        process = subprocess.Popen(  # noqa: S603
            [str(_PROGRAM)],
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": folder,
                "TMPDIR": folder,
                "BIND_HOST": "127.0.0.1",
                "GATEWAY_PORT": str(port),
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us: we end it once the last record is written
            preexec_fn=_die_with_parent,
        )
        try:
            _wait(process, port, output)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _die_with_parent() -> None:
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _wait(process: "subprocess.Popen[bytes]", port: int, output: IO[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", "/_ministack/health")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.05)
    output.seek(0)
    raise MiniStackError(f"MiniStack did not start: {output.read()[-2000:].decode(errors='replace')}")
