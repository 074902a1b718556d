"""What the operator's tools say where they cannot work: the same of all of them, and how to go on."""

import fcntl
import signal
import socket
import subprocess
import sys
import termios
import time
from typing import IO

import pytest

from tests.conftest import HOUSE
from tests.stack.ministack import MiniStack

TOOLS = {
    "keys": (["list"], "KEYS_TABLE", "--table"),
    "prices": (["list"], "PRICES_TABLE", "--table"),
    "ledger": (["replay", "-"], "USAGE_TABLE", "--table"),
}


def run(ministack: MiniStack, tool: str, *words: str) -> "subprocess.CompletedProcess[str]":
    call = [sys.executable, "-m", f"handler.billing.{tool}", *words]
    return subprocess.run(
        call, cwd=HOUSE, env=ministack.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("tool", TOOLS)
def test_without_a_table_it_says_both_ways_to_name_one(ministack: MiniStack, tool: str) -> None:
    words, variable, option = TOOLS[tool]
    done = run(ministack, tool, *words)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: which table? Name it with {option}, or set {variable} ")


@pytest.mark.parametrize("tool", ["keys", "prices"])
def test_a_table_that_is_not_there_is_named(ministack: MiniStack, tool: str) -> None:
    done = run(ministack, tool, "list", "--table", "no-such-table")
    assert done.returncode == 1
    assert "no-such-table" in done.stderr
    assert "ResourceNotFoundException" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("keys", ["list", "--table", "T"]),
        ("prices", ["list", "--table", "T"]),
        ("rollups", ["check", "--from", "2026-11-01", "--to", "2026-11-02"]),
        ("reports", ["--month", "2024-02"]),
        ("reports", ["export", "--month", "2024-02", "--to", "s3://bucket/"]),
        ("ledger", ["replay", "-", "--table", "T", "--entries", "E", "--rollups", "R", "--limits", "L"]),
    ],
)
def test_ctrl_c_ends_each_tool_with_a_line(ministack: MiniStack, tool: str, words: list[str]) -> None:
    """While its table, or its log, does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        names = dict.fromkeys(("USAGE_TABLE", "ROLLUPS_TABLE", "KEYS_TABLE", "ENTRIES_TABLE", "LIMITS_TABLE"), "T")
        env = ministack.env | names | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{deaf.getsockname()[1]}"}
        process = subprocess.Popen(
            [sys.executable, "-m", f"handler.billing.{tool}", *words],
            cwd=HOUSE,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stderr is not None
        if tool == "ledger":
            process.stdin.write("no record\n")
            process.stdin.flush()
            wait_until_read(process.stdin)  # and it reads on
        else:
            deaf.settimeout(30)
            deaf.accept()
        process.send_signal(signal.SIGINT)
        process.wait(30)
        with process.stdin, process.stderr as printed:
            said = printed.read()
    assert process.returncode == 130, said
    assert said.startswith("interrupted; what was under way may be done or not")
    assert said.count("\n") == 1


def wait_until_read(pipe: IO[str]) -> None:
    deadline = time.monotonic() + 30
    while any(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))):
        assert time.monotonic() < deadline, "nobody reads"
        time.sleep(0.01)


def test_a_log_that_is_not_there_is_a_wrong_call(ministack: MiniStack) -> None:
    tables = ["--table", "T", "--entries", "E", "--no-rollups", "--no-limits"]
    done = run(ministack, "ledger", "replay", "/no/such/log", *tables)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("error: /no/such/log is not there\n")
