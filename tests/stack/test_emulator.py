"""The emulator is one Lambda execution environment: what it lets a function see, and how each way to fail is told."""

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.emulator import EVENT_LIMIT, Emulator, FunctionCrashError, FunctionError, FunctionTimeoutError

TINY = """
import os, subprocess, time
time.sleep(0.2)
print("loaded", flush=True)

def handler(event, context):
    match event["do"]:
        case "answer":
            return {"event": event, "request_id": context.aws_request_id, "env": dict(os.environ), "pid": os.getpid()}
        case "raise":
            raise LookupError("nothing for Ω✓")
        case "exit":
            os._exit(7)
        case "sleep":
            time.sleep(event["seconds"])
        case "fork":
            return subprocess.Popen(["sleep", "600"]).pid
        case "write":
            print("x" * 1_000_000, flush=True)
"""


COMMAND = [sys.executable, "-m", "awslambdaric", "tiny.handler"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.py").write_text(TINY)
    return tmp_path


@pytest.fixture
def tiny(folder: Path) -> Iterator[Emulator]:
    with Emulator(COMMAND, {}, cwd=folder) as emulator:
        yield emulator


def test_a_handler_sees_the_event_as_it_was_sent(tiny: Emulator) -> None:
    event = {"do": "answer", "text": "Ω✓ \u0000 \U0001f680", "numbers": [1, 2.5, None]}

    assert tiny.invoke(event, request_id="the-id")["event"] == event


def test_a_handler_learns_the_id_of_its_request(tiny: Emulator) -> None:
    assert tiny.invoke({"do": "answer"}, request_id="the-id")["request_id"] == "the-id"


def test_a_function_sees_lambdas_environment_and_nothing_of_this_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THIS_PROCESS", "1")

    with Emulator(COMMAND, {"MODEL_DIR": "/m"}, cwd=folder, memory_mb=1769, timeout_s=9) as emulator:
        env = emulator.invoke({"do": "answer"})["env"]

    assert env["MODEL_DIR"] == "/m"
    assert env["AWS_LAMBDA_FUNCTION_NAME"]
    assert env["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "1769"
    assert env["AWS_LAMBDA_FUNCTION_TIMEOUT"] == "9"
    assert env["AWS_EXECUTION_ENV"] == "AWS_Lambda_Image"
    assert env["AWS_LAMBDA_RUNTIME_API"].startswith("127.0.0.1:")
    assert {"AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} <= env.keys()
    assert "OF_THIS_PROCESS" not in env
    assert "HOME" not in env


def test_what_a_handler_raises_arrives_with_type_and_message(tiny: Emulator) -> None:
    with pytest.raises(FunctionError) as raised:
        tiny.invoke({"do": "raise"})

    assert (raised.value.error_type, raised.value.error_message) == ("LookupError", "nothing for Ω✓")
    assert tiny.usable


def test_a_crash_is_told_and_the_next_call_starts_the_function_anew(tiny: Emulator) -> None:
    before = tiny.invoke({"do": "answer"})["pid"]

    with pytest.raises(FunctionCrashError, match="exit status 7"):
        tiny.invoke({"do": "exit"})

    assert tiny.usable
    assert tiny.invoke({"do": "answer"})["pid"] != before


def test_a_call_past_the_timeout_is_told_and_leaves_the_environment_spent(folder: Path) -> None:
    with Emulator(COMMAND, {}, cwd=folder, timeout_s=1) as emulator:
        with pytest.raises(FunctionTimeoutError):
            emulator.invoke({"do": "sleep", "seconds": 30})

        assert not emulator.usable


def test_an_import_that_fails_is_a_crash_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('no layer here')")

    with (
        Emulator([sys.executable, "-m", "awslambdaric", "broken.handler"], {}, cwd=tmp_path) as emulator,
        pytest.raises(FunctionCrashError, match="RuntimeError: no layer here"),
    ):
        emulator.invoke({})


def test_a_command_that_does_not_exist_is_a_crash(tmp_path: Path) -> None:
    with Emulator(["/no/such/program"], {}, cwd=tmp_path) as emulator, pytest.raises(FunctionCrashError):
        emulator.invoke({})


def test_an_emulator_that_has_gone_is_told_as_a_crash(tiny: Emulator) -> None:
    tiny.stop()

    with pytest.raises(FunctionCrashError, match="gave no answer"):
        tiny.invoke({"do": "answer"})
    assert not tiny.usable


def test_init_and_calls_are_timed_apart(tiny: Emulator) -> None:
    with pytest.raises(LookupError):
        _ = tiny.init_ms

    tiny.invoke({"do": "answer"})
    tiny.invoke({"do": "sleep", "seconds": 0.1})

    first, second = tiny.invocations_ms
    assert tiny.init_ms >= 200
    assert first < tiny.init_ms
    assert second >= 100


def test_the_log_holds_what_the_function_wrote_in_order(tiny: Emulator) -> None:
    tiny.invoke({"do": "answer"}, request_id="one")

    log = tiny.log
    assert log.index("INIT START") < log.index("loaded") < log.index("INVOKE START(requestId: one)")


def test_a_function_may_write_more_than_a_pipe_holds(tiny: Emulator) -> None:
    tiny.invoke({"do": "write"})

    assert "x" * 1_000_000 in tiny.log


def test_calls_at_the_same_time_wait_for_each_other(tiny: Emulator) -> None:
    answers: list[object] = []
    threads = [threading.Thread(target=lambda: answers.append(tiny.invoke({"do": "answer"})["pid"])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(answers) == 8
    assert len(set(answers)) == 1


def test_an_event_over_six_mebibytes_is_refused_before_the_emulator_cuts_it(tiny: Emulator) -> None:
    with pytest.raises(ValueError, match=str(EVENT_LIMIT)):
        tiny.invoke({"do": "answer", "text": "x" * EVENT_LIMIT})


def test_nothing_the_function_started_outlives_the_environment(tiny: Emulator) -> None:
    runtime, child = tiny.invoke({"do": "answer"})["pid"], tiny.invoke({"do": "fork"})
    assert alive(runtime)
    assert alive(child)

    tiny.stop()

    deadline = time.monotonic() + 5
    while alive(runtime) or alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and is not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
