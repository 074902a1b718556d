"""Files as OpenAI's SDKs see them, at both doors."""

import re
import time

import boto3
import httpx
import openai
import pytest

from handler.contract.files import LONGEST_S
from tests.batches.conftest import sdk
from tests.doors.conftest import Server
from tests.stack import node
from tests.stack.ministack import Tables

LINE = b'{"custom_id":"1","method":"POST","url":"/v1/embeddings","body":{"model":"m","input":"\xc3\xa9 \xff"}}\r\n'


def key(client: openai.OpenAI) -> dict[str, str]:
    return {"authorization": f"Bearer {client.api_key}"}


def test_a_file_is_created_found_read_and_deleted(client: openai.OpenAI) -> None:
    before = int(time.time())
    made = client.files.create(file=("in.jsonl", LINE), purpose="batch")
    assert re.fullmatch(r"file-[0-9a-f]{32}", made.id)
    assert made.to_dict() == {
        "id": made.id,
        "object": "file",
        "bytes": len(LINE),
        "created_at": made.created_at,
        "filename": "in.jsonl",
        "purpose": "batch",
        "status": "processed",
        "expires_at": made.created_at + LONGEST_S,
        "status_details": None,
    }
    assert before <= made.created_at <= time.time()
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).read() == LINE
    gone = client.files.delete(made.id)
    assert gone.to_dict() == {"id": made.id, "object": "file", "deleted": True}
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match=f"No such File object: {made.id}") as refused:
            call(made.id)
        assert (refused.value.param, refused.value.code) == ("id", None)


def test_another_accounts_file_is_none(client: openai.OpenAI, server: Server, tables: Tables) -> None:
    made = client.files.create(file=("in.jsonl", LINE), purpose="batch")
    other = sdk(server)(tables.create_key("acct_other", "inference"))
    for call in (other.files.retrieve, other.files.content, other.files.delete):
        with pytest.raises(openai.NotFoundError):
            call(made.id)
    assert client.files.retrieve(made.id) == made


def test_files_need_an_inference_key(server: Server, admin_key: str) -> None:
    with pytest.raises(openai.PermissionDeniedError):
        sdk(server)(admin_key).files.list()
    assert httpx.get(f"{server.url}/v1/files").status_code == 401


def test_files_are_listed_in_pages_which_an_sdk_turns_by_itself(client: openai.OpenAI) -> None:
    assert client.files.list().to_dict() == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }
    made = []
    for number in range(5):
        made.append(client.files.create(file=(f"{number}.jsonl", LINE), purpose="batch").id)
        time.sleep(0.002)
    assert [file.id for file in client.files.list(limit=2)] == made[::-1]
    assert [file.id for file in client.files.list(limit=2, order="asc")] == made
    page = client.files.list(limit=2, after=made[3], order="desc")
    assert [file.id for file in page.data] == [made[2], made[1]]
    assert page.has_more
    assert [file.id for file in client.files.list(purpose="batch")] == made[::-1]
    assert client.files.list(purpose="batch_output").data == []


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("limit=10001", "limit"), ("limit=a", "limit"), ("limit=", "limit"), ("order=up", "order")],
)
def test_a_page_that_cannot_be_is_refused(client: openai.OpenAI, server: Server, query: str, param: str) -> None:
    answer = httpx.get(f"{server.url}/v1/files?{query}", headers=key(client))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("seconds", [3600, 2592000])
def test_a_file_ends_when_it_was_told_to(client: openai.OpenAI, seconds: int) -> None:
    kept: openai.types.file_create_params.ExpiresAfter = {"anchor": "created_at", "seconds": seconds}
    made = client.files.create(file=("in.jsonl", LINE), purpose="batch", expires_after=kept)
    assert made.expires_at == made.created_at + seconds


FORM = {"file": ("in.jsonl", LINE)}


@pytest.mark.parametrize(
    ("fields", "files", "code", "param"),
    [
        ({"purpose": "batch"}, {}, "missing_required_parameter", "file"),
        ({"purpose": "batch", "file": "hello"}, {}, "invalid_type", "file"),
        ({}, FORM, "missing_required_parameter", "purpose"),
        ({"purpose": "fine-tune"}, FORM, "invalid_value", "purpose"),
        ({"purpose": "batch"}, {"file": ("in.txt", LINE)}, None, None),
        (
            {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"},
            *(FORM, "invalid_value", "expires_after[seconds]"),
        ),
        (
            {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "x"},
            *(FORM, "invalid_type", "expires_after[seconds]"),
        ),
        (
            {"purpose": "batch", "expires_after[seconds]": "3600"},
            *(FORM, "missing_required_parameter", "expires_after[anchor]"),
        ),
        (
            {"purpose": "batch", "expires_after[anchor]": "now", "expires_after[seconds]": "3600"},
            *(FORM, "invalid_value", "expires_after[anchor]"),
        ),
        ({"purpose": "batch", "expires_after": '{"seconds": 3600}'}, FORM, "invalid_type", "expires_after"),
    ],
)
def test_a_form_that_cannot_be_is_refused(
    client: openai.OpenAI,
    server: Server,
    fields: dict[str, str],
    files: dict[str, tuple[str, bytes]],
    code: str | None,
    param: str | None,
) -> None:
    parts = files or {"other": ("a", b"")}
    answer = httpx.post(f"{server.url}/v1/files", data=fields, files=parts, headers=key(client))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param), error
    if code is None:
        assert error["message"] == "Invalid file format for Batch API. Must be .jsonl"


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("multipart/form-data; boundary=x", b"no form", 400),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nnameless\r\n--x--", 400),
        ("multipart/form-data; boundary=x", b"--x\r\ncontent-disposition: form-data; name=a\r\n\r\nopen", 400),
        ("multipart/form-data", b"--x--", 415),
        ("multipart/mixed; boundary=x", b"--x--", 415),
    ],
)
def test_what_is_no_form_is_refused(client: openai.OpenAI, server: Server, kind: str, body: bytes, status: int) -> None:
    answer = httpx.post(f"{server.url}/v1/files", content=body, headers=key(client) | {"content-type": kind})
    assert answer.status_code == status
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


def test_a_file_too_large_for_the_door_is_put_to_s3(client: openai.OpenAI, server: Server) -> None:
    answer = httpx.post(
        f"{server.url}/v1/files",
        json={"filename": "large.jsonl", "purpose": "batch", "bytes": len(LINE)},
        headers=key(client),
    )
    file, slot = answer.json(), answer.json()["upload"]
    assert (file["status"], file["bytes"], slot["method"]) == ("uploaded", len(LINE), "PUT")
    assert client.files.retrieve(file["id"]).status == "uploaded"
    with pytest.raises(openai.NotFoundError, match="have not been put yet"):
        client.files.content(file["id"])
    put = httpx.put(slot["url"], content=LINE, headers=slot["headers"])
    assert put.status_code == 200, put.text
    found = client.files.wait_for_processing(file["id"])
    assert (found.status, found.bytes) == ("processed", len(LINE))
    assert client.files.content(file["id"]).read() == LINE
    again = httpx.put(slot["url"], content=LINE, headers=slot["headers"])
    assert again.status_code == 412, "what a batch may have read stays as it is"
    assert {"content-length", "host", "if-none-match"} <= {
        *slot["url"].partition("SignedHeaders=")[2].split("&")[0].split("%3B")
    }


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"filename": None}, "missing_required_parameter", "filename"),
        ({"filename": 1}, "invalid_type", "filename"),
        ({"filename": "in.json"}, None, None),
        ({"filename": "n" * 1020 + ".jsonl"}, "invalid_value", "filename"),
        ({"purpose": "vision"}, "invalid_value", "purpose"),
        ({"bytes": None}, "missing_required_parameter", "bytes"),
        ({"bytes": 0}, "invalid_value", "bytes"),
        ({"bytes": (5 << 30) + 1}, "invalid_value", "bytes"),
        ({"bytes": "7"}, "invalid_type", "bytes"),
        ({"expires_after": "soon"}, "invalid_type", "expires_after"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1.5}}, "invalid_type", "expires_after[seconds]"),
    ],
)
def test_a_promise_that_cannot_be_is_refused(
    client: openai.OpenAI, server: Server, fields: dict[str, object], code: str | None, param: str | None
) -> None:
    said = {"filename": "in.jsonl", "purpose": "batch", "bytes": 7} | fields
    answer = httpx.post(f"{server.url}/v1/files", json=said, headers=key(client))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param), error


@pytest.mark.parametrize("server", ["function"], indirect=True)
def test_content_that_a_function_cannot_return_is_fetched_from_s3(
    client: openai.OpenAI, server: Server, bucket: str, account: str
) -> None:
    made = client.files.create(file=("in.jsonl", LINE), purpose="batch")
    large = b"x" * (5 << 20)
    boto3.client("s3").put_object(Bucket=bucket, Key=f"files/{account}/{made.id}", Body=large)
    table = boto3.client("dynamodb")
    table.update_item(
        TableName="tests-Jobs",
        Key={"pk": {"S": f"file#{account}"}, "sk": {"S": made.id}},
        UpdateExpression="SET #bytes = :bytes",
        ExpressionAttributeNames={"#bytes": "bytes"},
        ExpressionAttributeValues={":bytes": {"N": str(len(large))}},
    )
    answer = httpx.get(f"{server.url}/v1/files/{made.id}/content", headers=key(client))
    assert answer.status_code == 303
    assert httpx.get(answer.headers["location"]).content == large
    assert client.files.content(made.id).read() == large


def test_the_node_sdk_does_the_same(client: openai.OpenAI, server: Server) -> None:
    [made, found, listed, content, gone, missing] = node.jobs(
        f"{server.url}/v1",
        client.api_key,
        [
            {
                "call": "files.create",
                "file": {"name": "größe.jsonl", "text": "{}\n"},
                "arguments": [{"purpose": "batch"}],
            },
            {"call": "files.retrieve", "arguments": ["$0"]},
            {"call": "files.list", "arguments": [{"limit": 1}]},
            {"call": "files.content", "arguments": ["$0"]},
            {"call": "files.delete", "arguments": ["$0"]},
            {"call": "files.retrieve", "arguments": ["$0"]},
        ],
    )
    assert (made["filename"], made["bytes"], made["status"]) == ("größe.jsonl", 3, "processed")
    assert found == made
    assert [file["id"] for file in listed["all"]] == [made["id"]]
    assert content == {"text": "{}\n"}
    assert gone == {"id": made["id"], "object": "file", "deleted": True}
    assert (missing["error"]["name"], missing["error"]["status"]) == ("NotFoundError", 404)
