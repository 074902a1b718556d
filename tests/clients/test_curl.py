"""curl, in the forms in which people type it, through both doors. A form is a column's word of the table, and for
the other tests the first word of their name."""

import json
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.clients import catalog
from tests.clients.conftest import MODEL, Reference, Served

pytestmark = catalog.unless_named(catalog.CURL)

TEXTS = ["the quick brown fox", "", "数字"]
BODY = json.dumps({"model": MODEL, "input": TEXTS})

# How it is called: the path, and what goes before it; {key} is a key.
BEARER = ["-H", "Authorization: Bearer {key}"]
JSON = ["-H", "Content-Type: application/json"]
FORMS = {
    "`/v1/embeddings`": ("/v1/embeddings", [*BEARER, *JSON]),
    "no `/v1`": ("/embeddings", [*BEARER, *JSON]),
    "trailing slash": ("/v1/embeddings/", [*BEARER, *JSON]),
    "`//`": ("//v1//embeddings", [*BEARER, *JSON]),
    "curl's own content type": ("/v1/embeddings", BEARER),
    "no content type": ("/v1/embeddings", [*BEARER, "-H", "Content-Type:"]),
    "`-u :KEY`": ("/v1/embeddings", ["-u", ":{key}", *JSON]),
    "`api-key`": ("/v1/embeddings", ["-H", "api-key: {key}", *JSON]),
    "`x-api-key`": ("/v1/embeddings", ["-H", "x-api-key: {key}", *JSON]),
    "chunked": ("/v1/embeddings", [*BEARER, *JSON, "-H", "Transfer-Encoding: chunked"]),
}


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


Curl = Callable[..., Reply]


@pytest.fixture
def curl(
    request: pytest.FixtureRequest,
    door: Served,
    inference_key: str,
    record_property: Callable[[str, object], None],
) -> Curl:
    """`curl OPTIONS URL`, where `{key}` in the options is a key."""
    program = shutil.which("curl")
    assert program, "curl is missing: install it"
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    check = request.node.callspec.params.get("form", request.function.__name__.split("_")[1])
    for name, value in {"client": "curl", "library": f"curl {version}", "check": check}.items():
        record_property(name, value)

    def call(path: str, *options: str) -> Reply:
        filled = [option.replace("{key}", inference_key) for option in options]
        # -q: no ~/.curlrc. The headers come first, then a blank line, then the body as curl has decoded it.
        command = [program, "-q", "--silent", "--show-error", "--noproxy", "*", "--include", *filled, door.url + path]
        head, _, body = subprocess.run(command, capture_output=True, check=True).stdout.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return Reply(int(status.split()[1]), headers, body)

    return call


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_call_is_the_same_request(
    curl: Curl, reference: Callable[[str], Reference], form: str
) -> None:
    path, options = FORMS[form]

    reply = curl(path, *options, "--data", BODY)

    assert reply.status == 200, reply.body
    assert_answers(reply.body, reference)


def test_gzip_is_sent_where_it_is_accepted(curl: Curl, reference: Callable[[str], Reference]) -> None:
    reply = curl("/v1/embeddings", *BEARER, *JSON, "--compressed", "--data", BODY)

    assert reply.headers["content-encoding"] == "gzip"
    assert "accept-encoding" in reply.headers["vary"]
    assert_answers(reply.body, reference)


def test_identity_is_sent_where_nothing_else_is_asked(curl: Curl, reference: Callable[[str], Reference]) -> None:
    reply = curl("/v1/embeddings", *BEARER, *JSON, "--data", BODY)

    assert "content-encoding" not in reply.headers
    assert_answers(reply.body, reference)


def test_head_is_the_get_without_its_body(curl: Curl) -> None:
    got, head = curl("/v1/models", *BEARER), curl("/v1/models", "--head", *BEARER)

    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-type"] == got.headers["content-type"]


def test_options_tell_the_methods_without_a_key(curl: Curl) -> None:
    reply = curl("/v1/embeddings", "--request", "OPTIONS")

    assert (reply.status, reply.body) == (204, b"")
    assert "post" in reply.headers["allow"]


def test_errors_are_told_in_the_envelope(curl: Curl) -> None:
    reply = curl("/v1/embeddings", "-H", "Authorization: Bearer sk-wrong", "--data", BODY)

    assert reply.status == 401
    assert json.loads(reply.body)["error"]["code"] == "invalid_api_key"


def assert_answers(body: bytes, reference: Callable[[str], Reference]) -> None:
    """These are the vectors and the usage of TEXTS."""
    answer = json.loads(body)
    wanted = [reference(text) for text in TEXTS]
    assert [struct.pack(f"<{len(item['embedding'])}f", *item["embedding"]) for item in answer["data"]] == [
        each.vector for each in wanted
    ]
    assert answer["usage"]["total_tokens"] == sum(each.tokens for each in wanted)
