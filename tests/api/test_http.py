"""The HTTP door of a plain server: requests, answers, errors and credentials."""

import base64
import hashlib
import json
import re
import socket
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pytest

from handler.billing import keys
from tests.stack.ministack import Tables
from tests.stack.server import PlainServer

MODEL = "all-minilm-l6-v2"


@pytest.fixture
def http(plain: PlainServer, inference_key: str) -> httpx.Client:
    return httpx.Client(base_url=plain.url, headers={"authorization": f"Bearer {inference_key}"}, timeout=60)


def embed(http: httpx.Client, **values: Any) -> httpx.Response:
    return http.post("/v1/embeddings", json={"model": MODEL, "input": "the quick brown fox"} | values)


def envelope(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer, after a look at everything that an error must have."""
    assert answer.headers["content-type"] == "application/json"
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])
    assert list(answer.json()) == ["error"]
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] is None or isinstance(error["code"], str)
    return error


def test_an_answer_has_the_contracts_body_and_headers(http: httpx.Client) -> None:
    answer = embed(http)
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == ["object", "data", "model", "usage"]
    assert (body["object"], body["model"]) == ("list", MODEL)
    assert body["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    [item] = body["data"]
    assert (item["object"], item["index"], len(item["embedding"])) == ("embedding", 0, 384)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["openai-version"] == "2020-10-01"
    assert answer.headers["openai-organization"] == "acct_test"
    assert answer.headers["openai-processing-ms"].isdigit()
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])


def test_the_time_of_each_part_is_told_where_it_is_asked_for(http: httpx.Client) -> None:
    assert "server-timing" not in embed(http).headers
    answer = http.post("/v1/embeddings", json={"model": MODEL, "input": "x"}, headers={"x-emblet-timing": "true"})
    parts = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    assert list(parts) == ["app", "auth", "read", "parse", "tokenize", "encode", "render", "record"]
    assert all(float(ms) > 0 for ms in parts.values())
    assert sum(map(float, parts.values())) <= int(answer.headers["openai-processing-ms"]) + 1


def test_float_and_base64_are_the_same_bits(http: httpx.Client) -> None:
    texts = ["one", "two words", "", "ünïcödé 你好 😀", "a " * 200]
    floats = embed(http, input=texts, encoding_format="float").json()["data"]
    packed = embed(http, input=texts, encoding_format="base64").json()["data"]
    for number, text, item in zip(range(5), floats, packed, strict=True):
        assert text["index"] == item["index"] == number
        assert np.array(text["embedding"], np.float32).tobytes() == base64.b64decode(item["embedding"])


def test_a_batch_is_answered_in_order_with_each_texts_own_vector(http: httpx.Client) -> None:
    texts = [f"text number {number} " * (number % 7 + 1) for number in range(60)]
    batch = embed(http, input=texts, encoding_format="base64").json()
    for number in (0, 13, 59):
        alone = embed(http, input=texts[number], encoding_format="base64").json()
        assert alone["data"][0]["embedding"] == batch["data"][number]["embedding"]
    singles = [embed(http, input=text).json()["usage"]["prompt_tokens"] for text in texts[:5]]
    assert embed(http, input=texts[:5]).json()["usage"]["prompt_tokens"] == sum(singles)


def test_probes_may_ask_for_the_head_alone(plain: PlainServer) -> None:
    for path in ("/health", "/ready", "/ping"):
        answer = httpx.head(plain.url + path)
        assert (answer.status_code, answer.content) == (200, b"")


def test_an_alias_is_answered_with_the_canonical_name(http: httpx.Client) -> None:
    assert embed(http, model="sentence-transformers/all-MiniLM-L6-v2").json()["model"] == MODEL


def test_a_text_of_the_whole_context_is_embedded_and_a_longer_one_refused(http: httpx.Client, tables: Tables) -> None:
    assert embed(http, input="word " * 254).json()["usage"]["prompt_tokens"] == 254
    before = len(tables.records())
    answer = embed(http, input=["short", "word " * 255])
    error = envelope(answer)
    assert (answer.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "input[1]")
    assert "256 tokens (254 of text, 2 special tokens), however input[1] has 255 tokens" in error["message"]
    assert len(tables.records()) == before


def test_more_than_300000_tokens_are_refused(http: httpx.Client) -> None:
    error = envelope(embed(http, input=["word " * 250] * 1201))
    assert (error["type"], error["code"]) == ("max_tokens_per_request", "max_tokens_per_request")
    assert error["message"] == "Requested 300250 tokens, max 300000 tokens per request"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", None),
        (b"{", None),
        (b"\xff\xfe", None),
        (b"[]", None),
        (b'{"model":"all-minilm-l6-v2","input":NaN}', None),
        (b'{"model":"all-minilm-l6-v2","input":["a",{"b":1}]}', "invalid_type"),
        (b'{"model":"all-minilm-l6-v2","input":[[1,2,100256]]}', "invalid_token_id"),
        (b'{"model":"all-minilm-l6-v2","input":"a","truncate":"true"}', "invalid_type"),
        (b'{"model":"all-minilm-l6-v2","input":"a","output_dtype":"int8"}', "unsupported_value"),
        (b'{"model":"all-minilm-l6-v2","input":"a","embedding_types":["sparse"]}', "unsupported_value"),
    ],
    ids=str,
)
def test_a_bad_body_is_a_400_in_the_envelope(http: httpx.Client, raw: bytes, code: str | None) -> None:
    answer = http.post("/v1/embeddings", content=raw)
    assert answer.status_code == 400
    assert envelope(answer)["code"] == code


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/nope", 404, "Invalid URL (GET /nope)"),
        ("POST", "/v1/chat/completions", 404, "Invalid URL (POST /v1/chat/completions)"),
        ("GET", "/v1/embeddings", 405, "Not allowed to GET on /v1/embeddings."),
        ("DELETE", "/v1/models", 405, "Not allowed to DELETE on /v1/models."),
        ("POST", "/health", 405, "Not allowed to POST on /health."),
    ],
)
def test_an_unknown_route_and_a_wrong_method_have_the_envelope(
    http: httpx.Client, method: str, path: str, status: int, message: str
) -> None:
    answer = http.request(method, path)
    assert answer.status_code == status
    assert envelope(answer)["message"].startswith(message)
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize("path", ["/v1/embeddings/", "//v1//embeddings", "/embeddings", "/embeddings/"])
def test_a_path_in_another_spelling_is_answered_and_never_redirected(http: httpx.Client, path: str) -> None:
    answer = http.post(path, json={"model": MODEL, "input": "x"})
    assert (answer.status_code, answer.history) == (200, [])


def test_a_missing_key_and_a_wrong_key_are_401(plain: PlainServer) -> None:
    none = httpx.post(f"{plain.url}/v1/embeddings", json={})
    wrong = httpx.post(f"{plain.url}/v1/embeddings", json={}, headers={"authorization": f"Bearer {keys.make()}"})
    garbage = httpx.post(f"{plain.url}/v1/embeddings", json={}, headers={"authorization": "Bearer hello"})
    assert none.status_code == wrong.status_code == garbage.status_code == 401
    assert envelope(none)["code"] is None
    assert envelope(none)["message"].startswith("You didn't provide an API key.")
    assert (
        envelope(wrong)
        == envelope(garbage)
        == {
            "message": "Incorrect API key provided.",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_api_key",
        }
    )


@pytest.mark.parametrize(
    "form",
    [
        lambda key: {"authorization": f"Bearer {key}"},
        lambda key: {"authorization": f"bearer   {key}"},
        lambda key: {"authorization": "Basic " + base64.b64encode(f"anyone:{key}".encode()).decode()},
        lambda key: {"api-key": key},
        lambda key: {"authorization": f"Bearer\t{key}"},
        lambda key: {"x-api-key": key},
        lambda key: {"authorization": "AWS4-HMAC-SHA256 Credential=x", "api-key": key},
    ],
)
def test_every_form_of_credential_is_accepted(plain: PlainServer, inference_key: str, form: Any) -> None:
    assert httpx.get(f"{plain.url}/v1/models", headers=form(inference_key)).status_code == 200


@pytest.mark.parametrize("value", [b"Basic \xe9", b"Basic !!", b"Basic YQ==", b"Basic /w=="])
def test_a_basic_credential_that_holds_no_key_is_401(plain: PlainServer, value: bytes) -> None:
    answer = httpx.get(f"{plain.url}/v1/models", headers=[(b"authorization", value)])
    assert answer.status_code == 401
    assert envelope(answer)["code"] == "invalid_api_key"


def test_no_path_writes_a_line_of_its_own_into_the_log(plain: PlainServer) -> None:
    httpx.get(f"{plain.url}/x%0aCRITICAL%20forged%00")
    log = plain.whole_log
    assert not any(line.startswith("CRITICAL forged") for line in log.splitlines())
    assert "CRITICAL%20forged" in log


def test_an_upload_that_breaks_off_is_no_error_of_ours(plain: PlainServer, inference_key: str) -> None:
    before = plain.log.count("client_disconnected")
    host, port = plain.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as caller:
        head = (
            f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\nauthorization: Bearer {inference_key}"
        )
        caller.sendall(head.encode() + b"\r\n\r\nhalf")
    deadline = time.monotonic() + 10
    while plain.log.count("client_disconnected") == before and time.monotonic() < deadline:
        time.sleep(0.05)
    lines = [line for line in plain.log.splitlines() if "client_disconnected" in line]
    assert len(lines) == before + 1
    assert " INFO " in lines[-1]
    assert "ClientDisconnect" not in plain.log


def test_an_admin_key_lists_models_and_may_not_embed(plain: PlainServer, admin_key: str) -> None:
    headers = {"authorization": f"Bearer {admin_key}"}
    assert httpx.get(f"{plain.url}/v1/models", headers=headers).status_code == 200
    answer = httpx.post(f"{plain.url}/v1/embeddings", headers=headers, json={"model": MODEL, "input": "x"})
    assert answer.status_code == 403
    assert envelope(answer)["message"] == "This key has the role 'admin'; POST /v1/embeddings needs 'inference'."


def test_models_are_listed_and_found_by_id_and_alias(http: httpx.Client) -> None:
    listed = http.get("/v1/models").json()
    assert listed["object"] == "list"
    [row] = listed["data"]
    assert (row["id"], row["dimensions"], row["context_window"], row["weights"]) == (MODEL, 384, 256, "real")
    assert http.get(f"/v1/models/{MODEL}").json() == row
    for name in ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers%2Fall-MiniLM-L6-v2"):
        found = http.get(f"/v1/models/{name}").json()
        assert (found["id"], found["alias_of"]) == ("sentence-transformers/all-MiniLM-L6-v2", MODEL)
    assert envelope(http.get("/v1/models/none"))["code"] == "model_not_found"


def test_health_and_readiness_are_public(plain: PlainServer) -> None:
    for path in ("/health", "/ready", "/ping"):
        assert httpx.get(plain.url + path).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"content-type": "multipart/form-data; boundary=x"}, {"content-encoding": "gzip"}], ids=str
)
def test_a_form_or_a_coding_is_415(http: httpx.Client, headers: dict[str, str]) -> None:
    answer = http.post("/v1/embeddings", content=b"{}", headers=headers)
    assert answer.status_code == 415
    assert envelope(answer)["code"] == "unsupported_media_type"


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_any_other_content_type_will_do_if_the_body_is_json(http: httpx.Client, kind: str) -> None:
    body = json.dumps({"model": MODEL, "input": "x"}).encode()
    assert http.post("/v1/embeddings", content=body, headers={"content-type": kind}).status_code == 200


def test_an_embedded_request_leaves_one_record_and_a_refused_one_none(
    http: httpx.Client, tables: Tables, inference_key: str
) -> None:
    before = {item["sk"]["S"] for item in tables.records()}
    answer = embed(http, input=["the quick brown fox", "jumps"])
    wrong: list[dict[str, Any]] = [{"input": []}, {"model": "none"}, {"input": "word " * 300}, {"dimensions": 7}]
    for refused in wrong:
        assert embed(http, **refused).status_code in (400, 404)
    [record] = [item for item in tables.records() if item["sk"]["S"] not in before]
    partition, sort, key_id = (record.pop(name)["S"] for name in ("pk", "sk", "key_id"))
    assert record == {
        "model": {"S": MODEL},
        "door": {"S": "http"},
        "tokens": {"N": str(answer.json()["usage"]["prompt_tokens"])},
        "requests": {"N": "1"},
        "usd_per_mtok": {"N": "0.01"},
        "attempt": {"N": "0"},
        "body": {"S": hashlib.sha256(answer.request.content).hexdigest()},
    }
    assert answer.json()["usage"]["prompt_tokens"] == 5
    [row] = [row for row in tables.key_rows() if row.get("key_id") == {"S": key_id}]  # an account's has none
    assert row["hash"]["S"] == keys.digest(inference_key)
    hashed = hashlib.sha256(answer.request.content).hexdigest()[:16]
    minute, work, seconds, work_id = sort.split("#")
    account, day, first = partition.split("#")
    assert (account, first, work) == ("acct_test", hashed[0], hashed)
    assert work_id == answer.headers["x-request-id"].removeprefix("req_")
    written = datetime.fromisoformat(f"{day}T{minute}:{seconds}+00:00")
    assert abs((datetime.now(UTC) - written).total_seconds()) < 60


def test_neither_keys_nor_texts_nor_values_reach_the_log(
    http: httpx.Client, plain: PlainServer, inference_key: str
) -> None:
    secret = "a-text-that-nobody-may-see"
    embed(http, input=secret, user=secret)
    embed(http, input=[secret, 5])
    http.post("/v1/embeddings", content=json.dumps({"model": MODEL, "input": {secret: secret}}))
    log = plain.whole_log
    assert "POST '/v1/embeddings' 200" in log
    assert secret not in log
    assert inference_key[3:20] not in log


def test_a_key_in_the_wrong_place_is_in_no_message_and_no_log(
    http: httpx.Client, plain: PlainServer, inference_key: str
) -> None:
    for answer in (
        http.get(f"/v1/models/{inference_key}"),
        http.get(f"/v1/x/{inference_key}"),
        embed(http, model=inference_key),
        embed(http, encoding_format=inference_key),
        http.get("/v1/models", headers={"x-client-request-id": inference_key}),
        http.get(f"/v1/models/{inference_key.replace('-', '%2D')}"),
        http.get(f"/v1/models/{inference_key.replace('-', '%252D')}"),
        http.get(f"/v1/models/%25252573k%252D{inference_key[3:]}"),
        http.get(f"/v1/models/{'x' * 230}{inference_key}"),  # the log cuts a path within it
        http.get(f"/v1/models/{inference_key.upper().replace('K', '%4B')}"),
        http.request(inference_key, "/health"),  # httpx sends a method in capitals
    ):
        assert inference_key[3:12].lower() not in answer.text.lower()
    assert inference_key[3:8].lower() not in plain.whole_log.lower()


def test_a_clients_own_name_of_a_request_is_logged_and_forges_no_line(http: httpx.Client, plain: PlainServer) -> None:
    http.get("/v1/models", headers={"x-client-request-id": "order-77"})
    http.get("/v1/models", headers=[(b"x-client-request-id", b"a\xe9\x85CRITICAL forged")])
    log = plain.whole_log
    assert "client's id 'order-77'" in log
    assert not any(line.startswith("CRITICAL forged") for line in log.splitlines())


def test_a_method_of_any_length_makes_a_short_line(http: httpx.Client, plain: PlainServer) -> None:
    assert http.request("X" * 3000, "/v1/models").status_code == 405
    assert "X" * 300 not in plain.whole_log


def test_names_of_the_clients_come_back_cut_and_in_their_own_characters(http: httpx.Client) -> None:
    error = envelope(embed(http, model="Ω✓" + "x" * 100))
    assert error["message"] == f"The model 'Ω✓{'x' * 62}…' does not exist or you do not have access to it."
