"""HTTP manners through both doors: how a path may be spelled, HEAD, OPTIONS, and what no route takes."""

import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from handler.api import docs, embeddings, health, metrics, models, usage
from handler.api.paths import Paths
from tests.api.conftest import MODEL, Door, envelope
from tests.stack.server import PlainServer

GETS = [
    "/",
    "/docs",
    "/openapi.json",
    "/v1/models",
    f"/v1/models/{MODEL}",
    "/v1/usage",
    "/v1/pricing",
    "/api/models",
    "/health",
    "/ready",
    "/ping",
]
PUBLIC = [path for path in GETS if not path.startswith(("/v1/models", "/v1/usage"))]
FOR_ADMINS = ["/v1/organization/usage/embeddings", "/v1/organization/costs"]  # asked in tests/doors/test_usage.py
OF_THE_MOMENT = {"date", "x-request-id", "openai-processing-ms", "x-amzn-requestid"}

HEAD_LIMIT = 1 << 16  # one byte more is sent, and no further one whose arrival at a closed socket would reset it

ROUTES = [resource.router for resource in (embeddings, models, usage, docs, health, metrics)]


def test_every_route_is_asked_here() -> None:
    """What the lists of this file promise for every route, they promise for those that there are."""
    found = {route.path: route.methods for router in ROUTES for route in router.routes if isinstance(route, APIRoute)}
    posts = {path for path, methods in found.items() if methods == {"POST"}}
    assert posts == {"/v1/embeddings", "/invocations"}
    assert {path.replace("{name:path}", MODEL) for path in found} - posts == {*GETS, *FOR_ADMINS, "/metrics"}


# Paths


@pytest.mark.parametrize(
    "path",
    [
        "/v1/embeddings/",
        "//v1//embeddings",
        "/v1/embeddings//",
        "/embeddings",
        "/embeddings/",
        "//embeddings",
        "/invocations",
        "/invocations/",
    ],
)
def test_embeddings_answers_under_every_spelling_of_its_path(door: Door, path: str) -> None:
    answer = door.embed(path)
    assert answer.status_code == 200
    assert answer.json() == door.embed().json()


@pytest.mark.parametrize("path", GETS)
def test_every_get_route_answers_with_a_trailing_slash_and_doubled_slashes_and_never_redirects(
    door: Door, path: str
) -> None:
    spellings = {f"{path}/", f"/{path}", path.replace("/", "//")}
    if path.startswith("/v1/"):
        spellings |= {path.removeprefix("/v1"), path.removeprefix("/v1") + "/"}
    for each in spellings:
        answer = door.ask("GET", each)
        assert (answer.status_code, answer.headers.get("location")) == (200, None), each
        if path != "/v1/pricing":  # it tells the time
            assert answer.content == door.ask("GET", path).content


def test_every_v1_route_there_will_be_answers_without_v1() -> None:
    app = FastAPI()
    app.add_api_route("/v1/files/{name}/content", lambda: None, methods=["GET"])
    paths = Paths(app.routes)
    assert paths.canonical("files/x//content/") == "/v1/files/x/content"
    assert paths.canonical("/file/x") == "/file/x"


@pytest.mark.parametrize("path", GETS)
def test_the_public_paths_need_no_key_and_the_others_do(door: Door, path: str) -> None:
    answer = door.ask("GET", path, headers={"authorization": ""})
    assert answer.status_code == (200 if path in PUBLIC else 401)


# Bodies that are coded, or said to be


@pytest.mark.parametrize("path", [*GETS, "/v1/embeddings", "/invocations"])
@pytest.mark.parametrize(
    ("codings", "named"),
    [
        (["gzip"], "gzip"),
        (["Identity, br"], "br"),
        (["identity", "DEFLATE"], "DEFLATE"),
        (["identity,, zstd , gzip"], "zstd"),
    ],
    ids=str,
)
def test_a_coding_of_the_body_is_415_on_every_route(door: Door, path: str, codings: list[str], named: str) -> None:
    headers = [("content-encoding", coding) for coding in codings]
    for method in ("GET", "HEAD") if path in GETS else ("POST",):
        answer = door.ask(method, path, headers=headers)
        assert answer.status_code == 415
        if method != "HEAD":
            assert envelope(answer) == {
                "message": f"Unsupported content type or encoding: {named}.",
                "type": "invalid_request_error",
                "param": None,
                "code": "unsupported_media_type",
            }


@pytest.mark.parametrize("codings", [["identity"], ["IDENTITY, identity"], ["identity", "identity"], [""]], ids=str)
def test_identity_is_no_coding(door: Door, codings: list[str]) -> None:
    headers = [("content-encoding", coding) for coding in codings]
    body = {"model": MODEL, "input": "text"}
    assert door.ask("POST", "/v1/embeddings", json=body, headers=headers).status_code == 200
    assert door.ask("GET", "/v1/models", headers=headers).status_code == 200


def test_a_coding_is_looked_at_in_its_turn(door: Door, admin_key: str) -> None:
    """After the path, the method, the key and its role."""
    gzip = {"content-encoding": "gzip"}
    assert door.ask("POST", "/nowhere", headers=gzip).status_code == 404
    assert door.ask("POST", "/v1/models", headers=gzip).status_code == 405
    assert door.ask("GET", "/v1/models", headers=gzip | {"authorization": ""}).status_code == 401
    of_admin = gzip | {"authorization": f"Bearer {admin_key}"}
    assert door.ask("POST", "/v1/embeddings", headers=of_admin).status_code == 403
    for path in FOR_ADMINS:
        assert door.ask("GET", path, headers=of_admin).status_code == 415
    assert door.ask("OPTIONS", "/v1/models", headers=gzip).status_code == 204


# HEAD and OPTIONS


@pytest.mark.parametrize("path", [*GETS, "/v1/models/unknown", "/nowhere"])
@pytest.mark.parametrize("coding", ["gzip", "identity"])
def test_head_is_get_without_the_body(door: Door, path: str, coding: str) -> None:
    get, head = (door.ask(method, path, headers={"accept-encoding": coding}) for method in ("GET", "HEAD"))
    assert head.content == b""
    assert head.status_code == get.status_code
    assert _lasting(head) == _lasting(get)
    assert int(head.headers["content-length"]) > 0


def test_head_of_a_route_that_is_no_get_is_405(door: Door) -> None:
    answer = door.ask("HEAD", "/v1/embeddings")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")


@pytest.mark.parametrize("path", [*GETS, "/v1/embeddings", "/invocations", "/embeddings/", "//v1//models"])
def test_options_tells_what_a_path_takes_and_needs_no_key(door: Door, path: str) -> None:
    answer = door.ask("OPTIONS", path, headers={"authorization": ""})
    assert (answer.status_code, answer.content) == (204, b"")
    posts = path.strip("/").endswith(("embeddings", "invocations"))
    assert answer.headers["allow"] == ("POST, OPTIONS" if posts else "GET, HEAD, OPTIONS")
    assert answer.headers["x-request-id"].startswith("req_")


def test_allow_lists_what_all_routes_of_a_path_take() -> None:
    app = FastAPI()
    for method in ("DELETE", "GET"):
        app.add_api_route("/v1/files/{name}", lambda: None, methods=[method])
    assert Paths(app.routes).allow("/v1/files/x") == "GET, HEAD, DELETE, OPTIONS"
    assert Paths(app.routes).allow("/v1/files") == ""


@pytest.mark.parametrize("target", ["*", "http://emblet.example.com:8080"])
def test_options_of_the_server_itself_tells_every_method(plain: PlainServer, target: str) -> None:
    answer = _aim(plain, "OPTIONS", target)
    assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, POST, OPTIONS")
    assert answer.headers["x-request-id"].startswith("req_")


def test_nothing_but_its_options_is_asked_of_the_server_itself(plain: PlainServer, door: Door) -> None:
    assert envelope(_aim(plain, "GET", "*"))["message"] == "Invalid URL (GET *)"
    assert door.ask("OPTIONS", "/*").status_code == 404


# Targets that are whole URLs, as a proxy gets them


@pytest.mark.parametrize("path", [*GETS, "/models/", "//v1//models", "/health?x=1", "/v1/models/none", "/x", ""])
@pytest.mark.parametrize("scheme", ["http", "HTTPS"])
def test_a_whole_url_is_answered_as_its_path_is(plain: PlainServer, inference_key: str, scheme: str, path: str) -> None:
    key, host = f"Bearer {inference_key}", "emblet.example.com:8080"
    whole = _aim(plain, "GET", f"{scheme}://{host}{path}", authorization=key, host="another.example.com")
    usual = _aim(plain, "GET", path or "/", authorization=key, host=host)
    assert (whole.status_code, _lasting(whole)) == (usual.status_code, _lasting(usual))
    if path != "/v1/pricing":  # it tells the time
        assert whole.content == usual.content


def test_a_whole_url_is_posted_to_as_its_path_is(plain: PlainServer, inference_key: str) -> None:
    body = {"model": MODEL, "input": "the quick brown fox"}
    answer = _aim(plain, "POST", "http://x/v1/embeddings", body, authorization=f"Bearer {inference_key}")
    assert (answer.status_code, answer.json()["usage"]["prompt_tokens"]) == (200, 4)


@pytest.mark.parametrize("target", ["http://", "http:///v1/models", "ftp://x/v1/models", "x:80"])
def test_any_other_target_is_no_path_of_ours(plain: PlainServer, target: str) -> None:
    answer = _aim(plain, "GET", target)
    assert answer.status_code == 404
    assert envelope(answer)["message"].startswith("Invalid URL (GET /")


# What no route takes


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", "/v1/nothing", "Invalid URL (GET /v1/nothing)"),
        ("OPTIONS", "/v1/nothing", "Invalid URL (OPTIONS /v1/nothing)"),
        ("POST", "/v1", "Invalid URL (POST /v1)"),
        ("GET", "/v1/embeddings/x", "Invalid URL (GET /v1/embeddings/x)"),
        ("GET", "/%ff%fe", "Invalid URL (GET /��)"),
        ("GET", "/a%00b", "Invalid URL (GET /a\x00b)"),
        ("GET", "/a%0d%0ab", "Invalid URL (GET /a\r%0Ab)"),
        ("GET", "/health%0a", "Invalid URL (GET /health%0A)"),
        ("GET", "/a%3fb%23c", "Invalid URL (GET /a?b#c)"),
        ("GET", "/metrics", "Invalid URL (GET /metrics)"),
        ("GET", "/x" * 10_000, f"Invalid URL (GET {'/x' * 32}…)"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_unknown_path_is_404_in_the_envelope(door: Door, method: str, path: str, message: str) -> None:
    answer = door.ask(method, path)
    assert answer.status_code == 404
    assert envelope(answer) == {"message": message, "type": "invalid_request_error", "param": None, "code": None}


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/embeddings", "POST, OPTIONS"),
        ("GET", "/invocations", "POST, OPTIONS"),
        ("DELETE", "/v1/models", "GET, HEAD, OPTIONS"),
        ("POST", "/", "GET, HEAD, OPTIONS"),
        ("PUT", "/ready", "GET, HEAD, OPTIONS"),
        ("PATCH", "/models", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_wrong_method_is_405_with_allow(door: Door, method: str, path: str, allow: str) -> None:
    answer = door.ask(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    where = "/v1/models" if path == "/models" else path
    assert envelope(answer)["message"].startswith(f"Not allowed to {method} on {where}. (HINT:")


@pytest.mark.parametrize("method", ["get", "TRACE", "PROPFIND"])
def test_a_method_that_nobody_knows_is_405(plain: PlainServer, method: str) -> None:
    answer = httpx.Response(0)
    head, body = _raw(plain, f"{method} /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    answer = httpx.Response(head.status_code, headers=head.headers, content=body)
    assert answer.status_code == 405
    assert envelope(answer)["message"].startswith(f"Not allowed to {method} on /health.")


def test_no_route_leaves_checking_to_the_framework() -> None:
    """Its 422 is read by no SDK, and the models it makes for that, of answers too, take 25 ms of every cold start."""
    for router in ROUTES:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            asked = route.dependant
            checked = [
                asked.path_params,
                asked.query_params,
                asked.header_params,
                asked.cookie_params,
                asked.body_params,
            ]
            assert checked == [[]] * 5
            assert route.response_field is None


# What is no HTTP

UNREADABLE = {
    400: "The server could not read your request as HTTP/1.1.",
    431: "The address and headers of your request are larger than are read here.",
}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET /health\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),  # no host
        (b"GET /health HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n", 400),
        (b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", 400),
        (b"GET /".ljust(HEAD_LIMIT + 1, b"x"), 431),
        (b"GET /health HTTP/1.1\r\nhost: x\r\nx-long: ".ljust(HEAD_LIMIT + 1, b"x"), 431),
    ],
    ids=lambda value: value[:40].decode() if isinstance(value, bytes) else str(value),
)
def test_what_the_server_cannot_read_is_refused_in_the_envelope(plain: PlainServer, sent: bytes, status: int) -> None:
    head, body = _raw(plain, sent)
    answer = httpx.Response(head.status_code, headers=head.headers, content=body)
    assert answer.status_code == status
    assert envelope(answer) == {
        "message": UNREADABLE[status],
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("path", ["/v1/embeddings", "/nowhere"])
def test_a_body_whose_chunks_are_broken_is_400_and_nothing_else(
    plain: PlainServer, inference_key: str, path: str
) -> None:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {inference_key}\r\n"
    answer, body = _raw(plain, head.encode() + b"transfer-encoding: chunked\r\n\r\nzz\r\n")
    assert answer.status_code == 400
    assert envelope(httpx.Response(400, headers=answer.headers, content=body)) == {
        "message": UNREADABLE[400],
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    assert "Traceback" not in plain.whole_log


def test_what_follows_an_answer_and_is_no_http_ends_the_connection_alone(plain: PlainServer) -> None:
    answer, body = _raw(plain, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\nhello\r\n\r\n")
    assert answer.status_code == 200
    assert body.startswith(b'{"status":"ok"}')
    assert "Traceback" not in plain.whole_log


def test_a_body_that_breaks_once_it_has_been_answered_ends_the_connection_alone(plain: PlainServer) -> None:
    where = urlsplit(plain.url)
    with socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=10) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        answer = b""
        while not answer.endswith(b'"code":null}}'):
            answer += connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 404")
        connection.sendall(b"zz\r\n")
        assert connection.recv(65536) == b""
    assert "Traceback" not in plain.whole_log


def test_an_empty_line_ahead_of_a_request_is_passed_over(plain: PlainServer) -> None:
    answer, body = _raw(plain, b"\r\nGET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert (answer.status_code, body) == (200, b'{"status":"ok"}')
    assert _raw(plain, b"\r\n\r\nGET /health HTTP/1.1\r\nhost: x\r\n\r\n")[0].status_code == 400


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_an_offer_of_another_protocol_is_passed_over(plain: PlainServer, protocol: str) -> None:
    warnings = plain.log.count("WARNING")
    answer = httpx.get(f"{plain.url}/health", headers={"connection": "upgrade", "upgrade": protocol})
    assert (answer.status_code, answer.http_version) == (200, "HTTP/1.1")
    assert plain.whole_log.count("WARNING") == warnings


@pytest.mark.parametrize(("kind", "status"), [("multipart/form-data ; boundary=x", 415), ("multipart/form-datax", 200)])
def test_only_form_data_is_no_json(plain: PlainServer, inference_key: str, kind: str, status: int) -> None:
    headers = {"authorization": f"Bearer {inference_key}", "content-type": kind}
    content = b'{"model":"%b","input":"x"}' % MODEL.encode()
    answer = httpx.post(f"{plain.url}/v1/embeddings", content=content, headers=headers)
    assert answer.status_code == status


def _lasting(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in OF_THE_MOMENT}


def _aim(server: PlainServer, method: str, target: str, body: Any = None, **headers: str) -> httpx.Response:
    """The answer to a request whose target is written so."""
    with httpx.Client() as client:
        extensions = {"target": target.encode()}
        return client.request(method, server.url, headers=headers, json=body, extensions=extensions)


def _raw(server: PlainServer, sent: bytes) -> tuple[httpx.Response, bytes]:
    """What comes back for these bytes until the server closes: head and body."""
    where = urlsplit(server.url)
    with socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=10) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    return httpx.Response(int(status.split()[1]), headers=headers), body
