"""`handler.runtime` as the Runtime API sees it."""

import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from handler import logs, runtime
from handler.ending import UnderWay
from handler.runtime import Context, RuntimeApiError
from tests.conftest import HOUSE
from tests.stack.runtimeapi import RuntimeApi

INVOCATION = "/2018-06-01/runtime/invocation"
# A process whose calls take as long as their event says.
PROCESS = """
import sys, time, types

def handler(event, _):
    print("begun", flush=True)
    time.sleep(event)
    return event

sys.modules["handler.entry"] = types.SimpleNamespace(handler=handler)
from handler import runtime
sys.exit(runtime.main())
"""


@pytest.fixture
def api() -> Iterator[RuntimeApi]:
    with RuntimeApi() as made:
        yield made


def serve(api: RuntimeApi, handler: runtime.Handler, threads: int = 1) -> list[threading.Thread]:
    def take() -> None:
        with pytest.raises(RuntimeApiError):
            runtime.serve(runtime.RuntimeApi(api.address), handler, UnderWay(), threading.Event())

    started = [threading.Thread(target=take, daemon=True) for _ in range(threads)]
    for each in started:
        each.start()
    return started


def test_results_go_back_for_their_calls_over_one_connection(api: RuntimeApi) -> None:
    serve(api, lambda event, _: {"text": event["text"]})
    for text in ("fox", "模型"):
        call = api.put(json.dumps({"text": text}).encode())
        got = api.got()
        assert got.path == f"{INVOCATION}/{call}/response"
        assert got.headers["lambda-runtime-invocation-id"] == f"invocation of {call}"
        assert got.headers["content-type"] == "application/json"
        assert got.body == f'{{"text":"{text}"}}'.encode(), "as it is: escaped, a character would be six bytes"
    assert api.connections == 1


def test_bytes_are_a_result_already(api: RuntimeApi) -> None:
    serve(api, lambda *_: b'{"made": "elsewhere"}')
    api.put(b"{}")
    assert api.got().body == b'{"made": "elsewhere"}'


def test_a_handler_is_told_its_call_and_the_time_that_is_left(api: RuntimeApi) -> None:
    found: list[Context] = []
    serve(api, lambda _, context: found.append(context))
    expected = [api.put(b"{}", seconds=20), api.put(b"{}", seconds=1e9)]
    assert [api.got().body, api.got().body] == [b"null", b"null"]
    assert [each.aws_request_id for each in found] == expected
    assert found[0].invoked_function_arn.endswith(":function:emblet:live")
    assert 15_000 < found[0].get_remaining_time_in_millis() <= 20_000
    assert found[1].get_remaining_time_in_millis() <= 5_400_000, "no function has more time"


def test_an_exception_is_the_calls_error_and_the_next_call_is_served(
    api: RuntimeApi, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(event: Any, _: Context) -> Any:
        if event == "exit":
            raise SystemExit
        return 1 / event

    serve(api, handler)
    call = api.put(b"0")
    got = api.got()
    assert got.path == f"{INVOCATION}/{call}/error"
    assert got.headers["lambda-runtime-function-error-type"] == "ZeroDivisionError"
    assert json.loads(got.headers["lambda-runtime-function-xray-error-cause"])["exceptions"][0]["type"] == (
        "ZeroDivisionError"
    )
    told = json.loads(got.body)
    assert (told["errorType"], told["errorMessage"], told["requestId"]) == (
        "ZeroDivisionError",
        "division by zero",
        call,
    )
    assert any("test_runtime.py" in line for line in told["stackTrace"])
    assert "ZeroDivisionError, at" in caplog.text
    assert "division by zero" not in caplog.text, "a message may hold what a client sent"
    for event, error in ((b'"exit"', "SystemExit"), (b"{broken", "JSONDecodeError")):
        api.put(event)
        assert api.got().headers["lambda-runtime-function-error-type"] == error
    api.put(b"4")
    assert api.got().body == b"0.25"


def test_whatever_an_exception_says_is_the_calls_error_and_ends_no_other_call(api: RuntimeApi) -> None:
    class SpeechlessError(Exception):
        def __str__(self) -> str:
            raise TypeError

    def handler(event: Any, _: Context) -> Any:
        if event == "speechless":
            raise SpeechlessError
        raise ValueError(f"unknown {event}")

    serve(api, handler)
    told = []
    for event in (rb'"\ud800"', b'"speechless"', b'"x"'):
        api.put(event)
        told.append(json.loads(api.got().body)["errorMessage"])
    assert told == ["unknown \ud800", "SpeechlessError", "unknown x"]


def test_what_is_no_json_is_an_error_too(api: RuntimeApi) -> None:
    serve(api, lambda *_: object())
    api.put(b"{}")
    assert api.got().path.endswith("/error")


def test_an_answer_that_is_not_taken_ends_nothing(api: RuntimeApi, caplog: pytest.LogCaptureFixture) -> None:
    """Lambda refuses one that is too large, or comes after the call's timeout."""
    serve(api, lambda event, _: event)
    api.refuse = 413
    api.put(b"1")
    api.got()
    api.put(b"2")
    assert api.got().body == b"2"
    assert "no answer was taken" in caplog.text


def test_a_connection_that_was_closed_meanwhile_is_opened_again(api: RuntimeApi) -> None:
    api.hang_up = True
    serve(api, lambda event, _: event)
    for number in range(3):
        call = api.put(b"%d" % number)
        got = api.got()
        assert (got.path, got.body) == (f"{INVOCATION}/{call}/response", b"%d" % number)
    assert api.connections > 3


def test_without_a_runtime_api_nothing_is_served(api: RuntimeApi) -> None:
    [thread] = serve(api, lambda event, _: event)
    api.events.put(None)
    thread.join(10)
    assert not thread.is_alive()
    with pytest.raises(RuntimeApiError, match="no answer"):
        runtime.serve(runtime.RuntimeApi("127.0.0.1:9"), lambda event, _: event, UnderWay(), threading.Event())


def test_calls_run_at_once_and_what_they_log_is_told_apart(api: RuntimeApi, capsys: pytest.CaptureFixture[str]) -> None:
    together = threading.Barrier(4)
    shown = logging.StreamHandler(sys.stdout)
    shown.setFormatter(logs._Json())
    logger = logging.getLogger("handler.test")
    logger.addHandler(shown)

    def handler(event: Any, context: Context) -> Any:
        together.wait(10)
        logger.warning('"%s" of %s', event, context.aws_request_id)
        together.wait(10)

    try:
        serve(api, handler, threads=4)
        calls = {api.put(b"%d" % number, trace=f"Root=1-{number}"): number for number in range(4)}
        for _ in range(4):
            api.got()
    finally:
        logger.removeHandler(shown)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["requestId"]: line["message"] for line in lines} == {
        call: f'"{number}" of {call}' for call, number in calls.items()
    }
    assert {line["xrayTraceId"] for line in lines} == {f"Root=1-{number}" for number in range(4)}
    assert {line["level"] for line in lines} == {"WARN"}, "as Lambda spells it, which filters by it"


def test_an_init_that_fails_is_reported_and_ends_the_process(api: RuntimeApi) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "handler.runtime"],
        cwd=HOUSE,
        env={"AWS_LAMBDA_RUNTIME_API": api.address, "AWS_LAMBDA_MAX_CONCURRENCY": "4", "THREADS": "many"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    got = api.got()
    assert done.returncode == 1
    assert got.path == "/2018-06-01/runtime/init/error"
    assert got.headers["lambda-runtime-function-error-type"] == "SettingError"
    assert json.loads(got.body)["errorMessage"] == "THREADS=many: expected a whole number, 0 or more"
    assert json.loads(done.stdout.splitlines()[-1])["errorType"] == "SettingError"


@pytest.fixture
def process(api: RuntimeApi) -> Iterator["subprocess.Popen[str]"]:
    env = {"AWS_LAMBDA_RUNTIME_API": api.address, "AWS_LAMBDA_MAX_CONCURRENCY": "2", "DRAIN_SECONDS": "2"}
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS], cwd=HOUSE, env=env, stdout=subprocess.PIPE, text=True
    ) as made:
        yield made
        made.kill()


def begin(api: RuntimeApi, process: "subprocess.Popen[str]", seconds: float) -> str:
    """A call that takes so long and has begun; its id."""
    call = api.put(json.dumps(seconds).encode())
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return call


def test_a_process_that_is_told_to_end_answers_what_it_has_begun(
    api: RuntimeApi, process: "subprocess.Popen[str]"
) -> None:
    calls = {begin(api, process, seconds) for seconds in (0.5, 0.6)}
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert {api.got().path for _ in calls} == {f"{INVOCATION}/{call}/response" for call in calls}


def test_a_process_that_is_told_to_end_waits_for_no_call_longer_than_it_may(
    api: RuntimeApi, process: "subprocess.Popen[str]"
) -> None:
    begin(api, process, 60)
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert time.monotonic() - start >= 2
    assert api.posted.empty()


def test_a_process_that_has_nothing_to_do_ends_at_once(api: RuntimeApi, process: "subprocess.Popen[str]") -> None:
    begin(api, process, 0)
    api.got()
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert time.monotonic() - start < 1


def test_a_process_that_is_told_to_end_takes_no_more(api: RuntimeApi, process: "subprocess.Popen[str]") -> None:
    calls = {begin(api, process, seconds) for seconds in (0.5, 0.6)}
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    api.put(b"0")
    assert process.wait(10) == 0
    assert {api.got().path for _ in calls} == {f"{INVOCATION}/{call}/response" for call in calls}
    assert api.posted.empty()
    assert api.events.qsize() == 1


def test_where_the_api_fails_one_thread_what_others_have_begun_is_answered(
    api: RuntimeApi, process: "subprocess.Popen[str]"
) -> None:
    call = begin(api, process, 0.5)
    api.events.put(None)
    assert process.wait(10) == 1
    assert api.got().path == f"{INVOCATION}/{call}/response"
