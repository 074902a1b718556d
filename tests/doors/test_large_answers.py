"""Answers that a function URL cannot return: a redirect to the results bucket, which SDKs follow by themselves.

2,048 inputs of 1,024 dimensions are 11 MB in base64 and 26 as digits; a function URL returns 6.
"""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import openai
import pytest

from tests.api.described import conforms, fetch
from tests.conftest import ENTRY, HOUSE
from tests.doors.conftest import Server
from tests.doors.test_lambda import float32
from tests.stack import node
from tests.stack.frontdoor import FrontDoor
from tests.stack.ministack import Tables
from tests.stack.server import PlainServer

MODEL = "bge-m3-seeded"
BUCKET = "large-answers"
TEXTS = [f"{index}" for index in range(2048)]


@pytest.fixture(scope="module")
def env(service_env: dict[str, str], seeded: Path) -> dict[str, str]:
    """With credentials that end, as a function's role has them: an address carries their token."""
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    role = boto3.client("sts").get_session_token()["Credentials"]
    return service_env | {
        "MODEL_DIR": str(seeded),
        "RESULTS_BUCKET": BUCKET,
        "AWS_ACCESS_KEY_ID": role["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": role["SecretAccessKey"],
        "AWS_SESSION_TOKEN": role["SessionToken"],
    }


@pytest.fixture(scope="module")
def function(env: dict[str, str]) -> Iterator[FrontDoor]:
    with FrontDoor(ENTRY, env, cwd=HOUSE, size=1, timeout_s=120) as door:
        yield door


def ask(server: Server, headers: dict[str, str], **body: Any) -> httpx.Response:
    return httpx.post(
        f"{server.url}/v1/embeddings", json={"model": MODEL, "input": TEXTS} | body, headers=headers, timeout=120
    )


@pytest.fixture(scope="module")
def expected(env: dict[str, str], inference_key: str, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """What a plain host answers to the same request, which it does whole."""
    with PlainServer(env, HOUSE, tmp_path_factory.mktemp("plain") / "log") as server:
        answer = ask(server, {"authorization": f"Bearer {inference_key}"}, encoding_format="base64")
    assert answer.status_code == 200, "never a redirect"
    return [base64.b64decode(item["embedding"]) for item in answer.json()["data"]]


@pytest.mark.parametrize("encoding_format", [None, "float"])
def test_pythons_sdk_gets_all_of_it_and_it_is_billed_once(
    function: FrontDoor, inference_key: str, tables: Tables, expected: list[bytes], encoding_format: Any
) -> None:
    before = {row["sk"]["S"] for row in tables.records()}
    sdk = openai.OpenAI(base_url=f"{function.url}/v1", api_key=inference_key, max_retries=0)
    more = {"encoding_format": encoding_format} if encoding_format else {}
    answer = sdk.embeddings.create(model=MODEL, input=TEXTS, **more)
    assert [item.index for item in answer.data] == list(range(2048))
    assert [float32(item.embedding) for item in answer.data] == expected
    assert answer.model == MODEL
    [record] = [row for row in tables.records() if row["sk"]["S"] not in before]
    assert int(record["tokens"]["N"]) == answer.usage.prompt_tokens > 2048


@pytest.mark.parametrize("encoding_format", [None, "float"])
def test_nodes_sdk_gets_all_of_it(
    function: FrontDoor, inference_key: str, expected: list[bytes], encoding_format: str | None
) -> None:
    call = {"input": TEXTS} | ({"encoding_format": encoding_format} if encoding_format else {})
    [answer] = node.embed(f"{function.url}/v1", inference_key, MODEL, [call])
    assert answer["indexes"] == list(range(2048))
    assert [base64.b64decode(vector) for vector in answer["vectors"]] == expected


def test_the_redirect_names_an_address_that_opens_without_a_key(function: FrontDoor, inference_key: str) -> None:
    answer = ask(function, {"authorization": f"Bearer {inference_key}"}, encoding_format="base64")
    assert answer.status_code == 303
    conforms(fetch(function.url), "POST", "/v1/embeddings", answer)
    body = answer.json()
    assert body.keys() == {"object", "url", "expires_at"}
    assert (body["object"], body["url"]) == ("embedding.result", answer.headers["location"])
    work_id = answer.headers["x-request-id"].removeprefix("req_")
    assert httpx.URL(body["url"]).path == f"/{BUCKET}/answers/acct_test/{work_id}.json"
    assert "X-Amz-SignedHeaders=host&" in body["url"] + "&"
    found = httpx.get(body["url"])
    assert (found.status_code, found.headers["content-type"]) == (200, "application/json")
    assert len(found.json()["data"]) == 2048


def most(answer: httpx.Response, encoding_format: str) -> int:
    """The number of inputs that a refusal names."""
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("response_too_large", "input")
    assert ('"encoding_format": "base64"' in error["message"]) == (encoding_format == "float")
    named = re.search(r"Send at most (\d+) inputs", error["message"])
    assert named is not None
    return int(named[1])


@pytest.mark.parametrize(("encoding_format", "number"), [("base64", 1137), ("float", 359)])
def test_a_key_that_would_be_sent_on_to_the_bucket_is_told_what_fits_instead(
    function: FrontDoor, inference_key: str, tables: Tables, encoding_format: str, number: int
) -> None:
    before = len(tables.records())
    for name in ("api-key", "x-api-key"):
        refused = ask(function, {name: inference_key}, encoding_format=encoding_format)
        assert most(refused, encoding_format) == number
    beside = {"authorization": f"Bearer {inference_key}", "api-key": inference_key}
    assert most(ask(function, beside, encoding_format=encoding_format), encoding_format) == number
    assert len(tables.records()) == before
    fits = ask(function, {"api-key": inference_key}, encoding_format=encoding_format, input=TEXTS[:number])
    assert fits.status_code == 200
    assert len(fits.json()["data"]) == number


def test_without_a_bucket_what_would_fit_is_named_and_does_fit(env: dict[str, str], inference_key: str) -> None:
    headers = {"authorization": f"Bearer {inference_key}"}
    with FrontDoor(ENTRY, env | {"RESULTS_BUCKET": ""}, cwd=HOUSE, size=1, timeout_s=120) as door:
        number = most(ask(door, headers, encoding_format="float"), "float")
        assert ask(door, headers, encoding_format="float", input=TEXTS[:number]).status_code == 200


def test_a_bucket_out_of_reach_is_503_and_nothing_is_billed(
    env: dict[str, str], inference_key: str, tables: Tables
) -> None:
    before = len(tables.records())
    with FrontDoor(ENTRY, env | {"RESULTS_BUCKET": "nowhere"}, cwd=HOUSE, size=1, timeout_s=120) as door:
        answer = ask(door, {"authorization": f"Bearer {inference_key}"}, encoding_format="base64")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
    assert len(tables.records()) == before
