"""Batches as OpenAI's SDKs see them, at both doors; test_batches.py has what becomes of them."""

import uuid
from typing import Any

import httpx
import openai
import pytest

from tests.batches.works import Works, line
from tests.doors.conftest import Server
from tests.stack import node
from tests.stack.ministack import Tables


@pytest.fixture
def client(server: Server, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


@pytest.fixture
def file(client: openai.OpenAI) -> str:
    return client.files.create(file=("in.jsonl", line("1") + line("2", "jumps over")), purpose="batch").id


NOT_PUT = r"have not been put yet: PUT them to its upload\.url first"
LARGE = 5 << 20  # bytes that a function cannot answer


def begin(client: openai.OpenAI, file: str, **more: object) -> openai.types.Batch:
    asked: Any = {"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h"} | more
    made: openai.types.Batch = client.batches.create(**asked)
    return made


def test_a_batch_is_made_done_and_read(client: openai.OpenAI, file: str, server_works: Works) -> None:
    batch = begin(client, file, metadata={"source": "nightly"})
    assert (batch.status, batch.metadata, batch.input_file_id) == ("validating", {"source": "nightly"}, file)
    assert batch.expires_at == batch.created_at + 86400
    server_works.until_quiet()
    done = client.batches.retrieve(batch.id)
    assert (done.status, done.errors) == ("completed", None)
    assert done.request_counts is not None
    assert done.request_counts.to_dict() == {"total": 2, "completed": 2, "failed": 0}
    assert done.output_file_id is not None
    lines = client.files.content(done.output_file_id).text.splitlines()
    assert [f'"custom_id":"{n}"' in each for n, each in zip("12", lines, strict=True)] == [True, True]
    assert [each.id for each in client.files.list(purpose="batch_output")] == [done.output_file_id]
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a batch with status 'completed'") as refused:
        client.batches.cancel(batch.id)
    assert refused.value.code == "batch_not_cancellable"


def test_a_bad_file_fails_later_and_by_line(client: openai.OpenAI, server_works: Works) -> None:
    file = client.files.create(file=("in.jsonl", line("1") + b"nonsense\n"), purpose="batch").id
    batch = begin(client, file)
    server_works.until_quiet()
    failed = client.batches.retrieve(batch.id)
    assert failed.status == "failed"
    assert failed.errors is not None
    assert failed.errors.data is not None
    [fault] = failed.errors.data
    assert (fault.code, fault.line, fault.param) == ("invalid_json_line", 2, None)
    assert fault.message == "This line is not parseable as valid JSON."


def test_batches_are_listed_newest_first_in_pages(client: openai.OpenAI, file: str) -> None:
    made = [begin(client, file).id for _ in range(3)][::-1]
    assert [each.id for each in client.batches.list(limit=2)] == made
    page = client.batches.list(limit=1, after=made[0])
    assert ([each.id for each in page.data], page.has_more) == ([made[1]], True)


def test_a_batch_is_cancelled(client: openai.OpenAI, file: str, server_works: Works) -> None:
    batch = begin(client, file)
    assert client.batches.cancel(batch.id).status == "cancelling"
    server_works.until_quiet()
    assert client.batches.retrieve(batch.id).status == "cancelled"
    assert client.batches.cancel(batch.id).status == "cancelled"


def test_another_accounts_batch_is_none(client: openai.OpenAI, file: str, server: Server, tables: Tables) -> None:
    batch = begin(client, file)
    stranger = tables.create_key("acct_stranger", "inference")
    other = openai.OpenAI(base_url=f"{server.url}/v1", api_key=stranger, max_retries=0)
    for call in (other.batches.retrieve, other.batches.cancel):
        with pytest.raises(openai.NotFoundError, match=f"No such Batch object: {batch.id}") as refused:
            call(batch.id)
        assert (refused.value.param, refused.value.code) == ("id", None)
    with pytest.raises(openai.BadRequestError) as unknown:
        begin(other, file)
    assert (unknown.value.param, unknown.value.code) == ("input_file_id", "invalid_value")


def test_under_one_idempotency_key_a_batch_is_made_once(client: openai.OpenAI, file: str) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    first = begin(client, file, extra_headers=headers)
    again = client.batches.with_raw_response.create(
        input_file_id=file, endpoint="/v1/embeddings", completion_window="24h", extra_headers=headers
    )
    assert again.parse().id == first.id
    assert again.headers["x-emblet-replay"] == "true"
    with pytest.raises(openai.BadRequestError) as reused:
        begin(client, file, metadata={"a": "b"}, extra_headers=headers)
    assert reused.value.code == "idempotency_key_reused"
    assert len(client.batches.list().data) == 1


@pytest.mark.parametrize("metadata", [None, {}, {"a": "b"}])
def test_an_sdks_own_retry_makes_no_second_batch(
    client: openai.OpenAI, file: str, metadata: dict[str, str] | None
) -> None:
    words: dict[str, Any] = {} if metadata is None else {"metadata": metadata}
    attempts = [{"x-stainless-retry-count": count} for count in ("0", "1", "2", "0")]
    made = [begin(client, file, extra_headers=each, **words).id for each in attempts]
    assert made[0] == made[1] == made[2] != made[3], "the last is another call"
    other = begin(client, file, metadata={"c": "d"}, extra_headers=attempts[1])
    assert other.id not in made
    assert len(client.batches.list().data) == 3


def test_a_batch_is_found_under_its_idempotency_key_when_its_file_is_gone(client: openai.OpenAI, file: str) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    first = begin(client, file, extra_headers=headers)
    client.files.delete(file)
    assert begin(client, file, extra_headers=headers).id == first.id
    with pytest.raises(openai.BadRequestError) as reused:
        begin(client, file, metadata={"a": "b"}, extra_headers=headers)
    assert reused.value.code == "idempotency_key_reused"


KEPT = "output_expires_after[seconds]"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"input_file_id": None}, "missing_required_parameter", "input_file_id"),
        ({"input_file_id": "file-none"}, "invalid_value", "input_file_id"),
        ({"input_file_id": ""}, "invalid_value", "input_file_id"),
        ({"input_file_id": "f" * 1100}, "invalid_value", "input_file_id"),
        ({"endpoint": None}, "missing_required_parameter", "endpoint"),
        ({"endpoint": "/v1/chat/completions"}, "invalid_value", "endpoint"),
        ({"completion_window": None}, "missing_required_parameter", "completion_window"),
        ({"completion_window": "1h"}, "invalid_value", "completion_window"),
        ({"metadata": "a"}, "invalid_type", "metadata"),
        ({"metadata": {"a": 1}}, "invalid_type", "metadata"),
        ({"metadata": {"a" * 65: "b"}}, "invalid_value", "metadata"),
        ({"metadata": {"a": "b" * 513}}, "invalid_value", "metadata"),
        ({"metadata": {str(n): "b" for n in range(17)}}, "invalid_value", "metadata"),
        ({"output_expires_after": {"anchor": "created_at"}}, "missing_required_parameter", KEPT),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "invalid_value", KEPT),
    ],
)
def test_what_cannot_be_is_refused(
    client: openai.OpenAI, server: Server, file: str, fields: dict[str, object], code: str, param: str
) -> None:
    asked = {"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h"} | fields
    answer = httpx.post(f"{server.url}/v1/batches", json=asked, headers={"authorization": f"Bearer {client.api_key}"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param), error


def test_what_is_longer_than_any_id_is_unknown(client: openai.OpenAI, file: str) -> None:
    long = "f" * 1100  # more than a key of DynamoDB's may have
    calls: list[Any] = [client.files.retrieve, client.files.content, client.files.delete]
    for call in (*calls, client.batches.retrieve, client.batches.cancel):
        with pytest.raises(openai.NotFoundError):
            call(long)
    made = begin(client, file).id
    assert [each.id for each in client.files.list(after=long, order="asc")] == [file]
    assert [each.id for each in client.batches.list(after="x" + long)] == [made]


def test_of_a_file_that_cannot_be_its_input_a_batch_is_refused_and_told_why(
    client: openai.OpenAI, server: Server, file: str, server_works: Works
) -> None:
    promise = {"filename": "in.jsonl", "purpose": "batch", "bytes": LARGE}
    headers = {"authorization": f"Bearer {client.api_key}"}
    promised = httpx.post(f"{server.url}/v1/files", json=promise, headers=headers).json()["id"]
    done = begin(client, file)
    server_works.until_quiet()
    output = str(client.batches.retrieve(done.id).output_file_id)
    reasons = {
        "file-none": "ids of files of this account.",
        output: "files of purpose 'batch', and this one is of purpose 'batch_output'.",
        promised: f"files that are processed, and the bytes of this one {NOT_PUT}.",
    }
    for unfit, why in reasons.items():
        with pytest.raises(openai.BadRequestError, match=f"Supported values are: {why}") as refused:
            begin(client, unfit)
        assert (refused.value.param, refused.value.code) == ("input_file_id", "invalid_value")
    with pytest.raises(openai.NotFoundError, match=NOT_PUT):
        client.files.content(promised)  # and no way to where nothing is


def test_the_node_sdk_does_the_same(client: openai.OpenAI, server: Server, file: str, server_works: Works) -> None:
    asked = {"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h"}
    made, cancelled, listed = node.jobs(
        f"{server.url}/v1",
        client.api_key,
        [
            {"call": "batches.create", "arguments": [asked]},
            {"call": "batches.cancel", "arguments": ["$0"]},
            {"call": "batches.list", "arguments": [{"limit": 1}]},
        ],
    )
    assert (made["status"], cancelled["status"]) == ("validating", "cancelling")
    assert [each["id"] for each in listed["all"]] == [made["id"]]
    server_works.until_quiet()
    [found, missing] = node.jobs(
        f"{server.url}/v1",
        client.api_key,
        [
            {"call": "batches.retrieve", "arguments": [made["id"]]},
            {"call": "batches.retrieve", "arguments": ["batch_none"]},
        ],
    )
    assert found["status"] == "cancelled"
    assert (missing["error"]["name"], missing["error"]["param"]) == ("NotFoundError", "id")
