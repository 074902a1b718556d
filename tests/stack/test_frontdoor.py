"""The front door is a function URL: what it makes of a request, what it makes of a result, and its own refusals."""

import base64
import http.client
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.stack.emulator import EVENT_LIMIT
from tests.stack.frontdoor import FrontDoor, ThrottledError
from tests.stack.payload import DOMAIN

# The first request waits for the start of its environment.
get, post = partial(httpx.get, timeout=30), partial(httpx.post, timeout=30)

TINY = """
import json, os, pathlib, time

def handler(event, context):
    match event["rawPath"]:
        case "/echo" | "//echo":
            return {"statusCode": 200, "body": json.dumps(event)}
        case "/length":
            return len(event["body"])
        case "/who":
            return {"pid": os.getpid(), "request_id": context.aws_request_id}
        case "/cookies":
            return {"statusCode": 200, "cookies": ["a=1; Path=/", "b=2"], "body": "sweet"}
        case "/binary":
            return {"statusCode": 201, "headers": {"Content-Type": "image/png", "X-Own": "1"},
                    "body": "AAEC/w==", "isBase64Encoded": True}
        case "/empty":
            return {"statusCode": 204, "body": "not to be sent"}
        case "/raise":
            raise ValueError("no")
        case "/exit":
            os._exit(1)
        case "/malformed":
            return {"statusCode": "two hundred"}
        case "/not-base64":
            return {"statusCode": 200, "body": "***", "isBase64Encoded": True}
        case "/too-long":
            return {"statusCode": 200, "body": "x" * 6_291_556}
        case "/sleep":
            time.sleep(30)
        case "/hold":
            here = pathlib.Path(event["rawQueryString"])
            here.with_suffix(".in").touch()
            while not here.exists():
                time.sleep(0.005)
            return {"pid": os.getpid()}
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., FrontDoor]]:
    (tmp_path / "tiny.py").write_text(TINY)
    doors: list[FrontDoor] = []

    def open_door(**settings: Any) -> FrontDoor:
        door = FrontDoor([sys.executable, "-m", "awslambdaric", "tiny.handler"], {}, cwd=tmp_path, **settings)
        doors.append(door.__enter__())
        return door

    yield open_door
    for door in doors:
        door.__exit__(None, None, None)


@pytest.fixture
def door(start: Callable[..., FrontDoor]) -> FrontDoor:
    return start(size=1)


def test_a_request_reaches_the_handler_as_payload_format_2(door: FrontDoor) -> None:
    answer = post(
        f"{door.url}/echo?a=1&b=%C3%A9&a=2",
        headers=[("X-Twice", "one"), ("X-Twice", "two"), ("Cookie", "c=3; d=4"), ("User-Agent", "me")],
        json={"text": "Ω✓"},
    )

    event = answer.json()
    assert event["version"] == "2.0"
    assert event["rawPath"] == "/echo"
    assert event["rawQueryString"] == "a=1&b=%C3%A9&a=2"
    assert event["queryStringParameters"] == {"a": "1,2", "b": "é"}
    assert event["headers"]["x-twice"] in ("one,two", "one, two")
    assert event["headers"]["host"] == event["requestContext"]["domainName"] == DOMAIN
    assert "cookie" not in event["headers"]
    assert event["cookies"] == ["c=3", "d=4"]
    assert event["requestContext"]["http"]["method"] == "POST"
    assert event["requestContext"]["http"]["sourceIp"] == "127.0.0.1"
    assert event["requestContext"]["http"]["userAgent"] == "me"
    assert json.loads(event["body"]) == {"text": "Ω✓"}
    assert event["isBase64Encoded"] is False


@pytest.mark.parametrize(
    ("kind", "body"),
    [("application/octet-stream", b"\x00\xff"), ("application/json", b'"\xff"'), ("application/x-ndjson", b"{}")],
    ids=["binary", "not UTF-8", "no text type"],
)
def test_a_body_that_is_no_text_travels_as_base64(door: FrontDoor, kind: str, body: bytes) -> None:
    event = post(f"{door.url}/echo", content=body, headers={"content-type": kind}).json()

    assert event["isBase64Encoded"] is True
    assert base64.b64decode(event["body"]) == body


def test_a_compressed_body_travels_as_base64(door: FrontDoor) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}

    assert post(f"{door.url}/echo", content=b"{}", headers=headers).json()["isBase64Encoded"] is True


def test_a_body_in_chunks_arrives_whole(door: FrontDoor) -> None:
    headers = {"content-type": "text/plain"}

    event = post(f"{door.url}/echo", content=iter([b"one ", b"two ", b"three"]), headers=headers).json()

    assert event["body"] == "one two three"


def test_slashes_at_the_start_of_the_path_stay(door: FrontDoor) -> None:
    connection = http.client.HTTPConnection(door.url.removeprefix("http://"))
    connection.request("GET", "//echo")

    event = json.load(connection.getresponse())

    assert event["rawPath"] == event["requestContext"]["http"]["path"] == "//echo"


def test_cookies_of_the_result_become_headers_of_their_own(door: FrontDoor) -> None:
    answer = get(f"{door.url}/cookies")

    assert answer.headers.get_list("set-cookie") == ["a=1; Path=/", "b=2"]
    assert answer.text == "sweet"


def test_a_base64_result_is_sent_as_bytes_with_its_own_status_and_headers(door: FrontDoor) -> None:
    answer = get(f"{door.url}/binary")

    assert answer.status_code == 201
    assert answer.content == b"\x00\x01\x02\xff"
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-own"] == "1"


def test_a_bare_value_is_the_body_of_a_200(door: FrontDoor) -> None:
    answer = get(f"{door.url}/who")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["pid"]


def test_an_answer_carries_the_id_that_the_handler_saw(door: FrontDoor) -> None:
    answer = get(f"{door.url}/who")

    assert answer.headers["x-amzn-requestid"] == answer.json()["request_id"]


@pytest.mark.parametrize(("method", "path"), [("HEAD", "/binary"), ("GET", "/empty")])
def test_a_connection_goes_on_after_an_answer_without_body(door: FrontDoor, method: str, path: str) -> None:
    with httpx.Client(base_url=door.url, timeout=30) as client:
        bodiless = client.request(method, path)
        after = client.get("/binary")

    assert bodiless.content == b""
    assert after.content == b"\x00\x01\x02\xff"


def test_an_event_over_six_mebibytes_is_413_and_calls_nothing(door: FrontDoor) -> None:
    body = b"\xff" * (EVENT_LIMIT * 3 // 4)  # as base64 just over the limit, with the rest of the event

    answer = post(f"{door.url}/length", content=body)

    assert answer.status_code == 413
    assert answer.headers["x-amzn-errortype"] == "RequestEntityTooLargeException"
    assert door.pool.started == []


def test_an_event_just_under_six_mebibytes_arrives_whole(door: FrontDoor) -> None:
    body = b"x" * (EVENT_LIMIT - 2000)

    answer = post(f"{door.url}/length", content=body, headers={"content-type": "text/plain"})

    assert answer.json() == len(body)


def test_calls_beyond_the_concurrency_are_429_until_one_ends(door: FrontDoor, tmp_path: Path) -> None:
    with Held(door, tmp_path / "gate"):
        refused = get(f"{door.url}/who")
    after = get(f"{door.url}/who")

    assert refused.status_code == 429
    assert refused.headers["x-amzn-errortype"] == "TooManyRequestsException"
    assert refused.json()["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert after.status_code == 200


def test_environments_start_when_they_are_needed_and_are_used_again(
    start: Callable[..., FrontDoor], tmp_path: Path
) -> None:
    door = start(size=3)
    assert door.pool.started == []

    first = get(f"{door.url}/who").json()["pid"]
    assert get(f"{door.url}/who").json()["pid"] == first
    assert len(door.pool.started) == 1

    with Held(door, tmp_path / "gate") as held:
        beside = get(f"{door.url}/who").json()["pid"]

    assert len(door.pool.started) == 2
    assert beside != first == held.answer.json()["pid"]


def test_an_environment_started_ahead_serves_the_first_request(start: Callable[..., FrontDoor]) -> None:
    door = start(size=2)

    ahead = door.warm()
    get(f"{door.url}/who")

    assert door.pool.started == [ahead]
    assert len(ahead.invocations_ms) == 1


@pytest.mark.parametrize("path", ["/raise", "/exit", "/malformed", "/not-base64", "/too-long"])
def test_a_failed_call_is_502_and_the_next_one_is_answered(door: FrontDoor, path: str) -> None:
    failed = get(door.url + path)
    after = get(f"{door.url}/who")

    assert (failed.status_code, failed.text) == (502, "Internal Server Error")
    assert failed.headers["x-amzn-requestid"]
    assert after.status_code == 200


def test_a_timeout_is_502_and_a_new_environment_answers_the_next_request(start: Callable[..., FrontDoor]) -> None:
    door = start(size=1, timeout_s=10)
    before = get(f"{door.url}/who").json()["pid"]

    failed = get(f"{door.url}/sleep")
    after = get(f"{door.url}/who")

    assert failed.status_code == 502
    assert after.json()["pid"] != before
    assert [emulator.usable for emulator in door.pool.started] == [False, True]


def test_a_call_past_the_url_takes_any_event_and_counts_against_the_concurrency(
    door: FrontDoor, tmp_path: Path
) -> None:
    assert door.invoke({"rawPath": "/length", "body": "four"}) == 4

    with Held(door, tmp_path / "gate"), pytest.raises(ThrottledError, match="environments are busy"):
        door.invoke({"rawPath": "/who"})


def test_a_request_on_an_open_connection_takes_a_few_milliseconds(door: FrontDoor) -> None:
    times = []
    with httpx.Client(base_url=door.url, timeout=30) as client:
        for _ in range(40):
            begin = time.perf_counter()
            client.post("/echo", json="x" * 20_000)
            times.append(time.perf_counter() - begin)

    assert sorted(times)[5] < 0.04  # where a server lets Nagle's algorithm wait, all but one or two take longer


class Held:
    """A request that is in the handler for as long as the block runs; its answer is there afterwards."""

    answer: httpx.Response

    def __init__(self, door: FrontDoor, gate: Path) -> None:
        self._door, self._gate = door, gate
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        self.answer = get(f"{self._door.url}/hold?{self._gate}")

    def __enter__(self) -> "Held":
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._gate.with_suffix(".in").exists():
            assert time.monotonic() < deadline, "the request has not reached the handler"
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._gate.touch()
        self._thread.join()
