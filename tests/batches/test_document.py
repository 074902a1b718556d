"""What the OpenAPI document tells of files and batches, held against what is accepted and answered."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from jsonschema.exceptions import ValidationError

from tests.api.described import Document, check, conforms, fetch, operations
from tests.batches.works import Works, line
from tests.doors.conftest import Server
from tests.fuzz.test_openapi import Role, explore
from tests.stack.server import PlainServer

PATHS = ("/v1/files", "/v1/batches")
BEYOND_DOORS = {"413", "500", "503"}  # of bodies that a function URL does not take, and of outages
LARGE = 5 << 20  # bytes that a function cannot answer
WHOLE = {"endpoint": "/v1/embeddings", "completion_window": "24h"}

Answer = tuple[str, str, httpx.Response]  # method and path as the document has them, and what came


@pytest.fixture
def document(server: Server) -> Document:
    return fetch(server.url)


class Caller:
    """A key at one of the doors."""

    def __init__(self, server: Server, key: str) -> None:
        self._url, self._http = server.url, httpx.Client(headers={"authorization": f"Bearer {key}"}, timeout=60)

    def ask(self, method: str, path: str, id_: str = "", **more: Any) -> Answer:
        return method, path, self._http.request(method, self._url + path.replace("{id}", id_), **more)

    def create(self, **more: Any) -> Answer:
        return self.ask("POST", "/v1/files", **more)

    def begin(self, file_id: str, headers: dict[str, str] | None = None, **more: Any) -> Answer:
        return self.ask("POST", "/v1/batches", json={"input_file_id": file_id} | WHOLE | more, headers=headers)


@pytest.fixture
def caller(server: Server, key: str) -> Caller:
    return Caller(server, key)


def form(text: bytes, **fields: str) -> dict[str, Any]:
    return {"files": {"file": ("in.jsonl", text)}, "data": {"purpose": "batch"} | fields}


def of_files(caller: Caller, bucket: str, account: str) -> Iterator[Answer]:
    yield (made := caller.create(**form(line("1"))))
    yield (promised := caller.create(json={"filename": "a.jsonl", "purpose": "batch", "bytes": LARGE}))
    file, large = made[2].json()["id"], promised[2].json()["id"]
    yield caller.create(content=b"{")
    yield caller.create(json={"filename": "a.jsonl"})
    yield caller.create(**form(b"", purpose="vision"))
    yield caller.ask("GET", "/v1/files")
    yield caller.ask("GET", "/v1/files", params={"limit": 1, "order": "asc", "purpose": "batch", "after": file})
    yield caller.ask("GET", "/v1/files", params={"limit": 0})
    yield caller.ask("GET", "/v1/files/{id}", large)
    yield caller.ask("GET", "/v1/files/{id}/content", large)  # which has not been put yet
    boto3.client("s3").put_object(Bucket=bucket, Key=f"files/{account}/{large}", Body=bytes(LARGE))
    for id_ in (file, large, "file-none", "x" * 3000):
        yield caller.ask("GET", "/v1/files/{id}", id_)
        yield caller.ask("GET", "/v1/files/{id}/content", id_)
        yield caller.ask("DELETE", "/v1/files/{id}", id_)


def of_batches(caller: Caller, works: Works) -> Iterator[Answer]:
    good, bad = (caller.create(**form(text))[2].json()["id"] for text in (line("1"), b"nonsense"))
    named = {"idempotency-key": "one"}
    yield (done := caller.begin(good, named, metadata={"a": "b"}))
    yield caller.begin(good, named, metadata={"a": "b"})
    yield caller.begin(good, named)
    yield (failed := caller.begin(bad))
    yield (cancelled := caller.begin(good))
    yield caller.begin("file-none")
    yield caller.ask("POST", "/v1/batches/{id}/cancel", cancelled[2].json()["id"])
    works.until_quiet()
    for answer in (done, failed, cancelled):
        yield caller.ask("GET", "/v1/batches/{id}", answer[2].json()["id"])
        yield caller.ask("POST", "/v1/batches/{id}/cancel", answer[2].json()["id"])
    for id_ in ("batch_none", "x" * 3000):
        yield caller.ask("GET", "/v1/batches/{id}", id_)
        yield caller.ask("POST", "/v1/batches/{id}/cancel", id_)
    yield caller.ask("GET", "/v1/batches")
    yield caller.ask("GET", "/v1/batches", params={"limit": 1, "after": "x" * 3000, "order": "any"})
    yield caller.ask("GET", "/v1/batches", params={"limit": 101})


def refused(document: Document, caller: Caller, admin: Caller) -> Iterator[Answer]:
    """What each operation answers without a key, to one of another role, and to a body that is coded."""
    for path, method, _ in operations(document):
        if path.startswith(PATHS):
            yield caller.ask(method.upper(), path, "x", headers={"authorization": ""})
            yield admin.ask(method.upper(), path, "x")
            yield caller.ask(method.upper(), path, "x", headers={"content-encoding": "gzip"})


def test_every_answer_is_described_and_every_answer_that_is_described_is_given(
    document: Document,
    server: Server,
    caller: Caller,
    admin_key: str,
    server_works: Works,
    bucket: str,
    account: str,
) -> None:
    met = defaultdict(set)
    answers = (
        *of_files(caller, bucket, account),
        *of_batches(caller, server_works),
        *refused(document, caller, Caller(server, admin_key)),
    )
    for method, path, answer in answers:
        conforms(document, method, path, answer)
        met[path, method.lower()].add(str(answer.status_code))
    for path, method, operation in operations(document):
        if path.startswith(PATHS):
            assert operation["responses"].keys() - BEYOND_DOORS == met[path, method], (method, path)


KEPT = {"anchor": "created_at", "seconds": 3600}
PROMISED: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"bytes": 5 << 30, "unknown": 1}, True),
    ({"expires_after": None}, True),
    ({"expires_after": KEPT}, True),
    ({"expires_after": KEPT | {"seconds": 2_592_000}}, True),
    ({"filename": None}, False),
    ({"filename": 5}, False),
    ({"filename": "in.json"}, False),
    ({"filename": "x" * 1018 + ".jsonl"}, True),
    ({"filename": "x" * 1019 + ".jsonl"}, False),
    ({"purpose": "vision"}, False),
    ({"purpose": None}, False),
    ({"bytes": 0}, False),
    ({"bytes": (5 << 30) + 1}, False),
    ({"bytes": "7"}, False),
    ({"bytes": True}, False),
    ({"expires_after": "soon"}, False),
    ({"expires_after": {"anchor": "created_at"}}, False),
    ({"expires_after": KEPT | {"anchor": "now"}}, False),
    ({"expires_after": KEPT | {"seconds": 3599}}, False),
    ({"expires_after": KEPT | {"seconds": None}}, False),
]
BEGUN: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"metadata": None, "output_expires_after": None, "unknown": 1}, True),
    ({"metadata": {}, "output_expires_after": KEPT}, True),
    ({"metadata": {f"{n:064}": "b" * 512 for n in range(16)}}, True),
    ({"input_file_id": None}, False),
    ({"input_file_id": 5}, False),
    ({"endpoint": None}, False),
    ({"endpoint": "/v1/completions"}, False),
    ({"completion_window": "1h"}, False),
    ({"metadata": []}, False),
    ({"metadata": {"a": 1}}, False),
    ({"metadata": {"a": None}}, False),
    ({"metadata": {"a" * 65: "b"}}, False),
    ({"metadata": {"a": "b" * 513}}, False),
    ({"metadata": {str(n): "b" for n in range(17)}}, False),
    ({"output_expires_after": {}}, False),
    ({"output_expires_after": KEPT | {"seconds": 2_592_001}}, False),
]
FORMS: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"expires_after[anchor]": "created_at", "expires_after[seconds]": 3600, "unknown": "x"}, True),
    ({"purpose": "vision"}, False),
    ({"expires_after[anchor]": "created_at"}, False),
    ({"expires_after[seconds]": 3600}, False),
    ({"expires_after[anchor]": "now", "expires_after[seconds]": 3600}, False),
    ({"expires_after[anchor]": "created_at", "expires_after[seconds]": 3599}, False),
    ({"expires_after": '{"anchor": "created_at", "seconds": 3600}'}, False),
]


def admits(document: Document, path: str, media: str, values: dict[str, Any]) -> bool:
    body = document["paths"][path]["post"]["requestBody"]
    assert body["required"]
    try:
        check(document, body["content"][media]["schema"], values)
    except ValidationError:
        return False
    return True


def test_a_promise_is_taken_if_the_document_admits_it(document: Document, caller: Caller) -> None:
    for fields, good in PROMISED:
        values = {"filename": "in.jsonl", "purpose": "batch", "bytes": 7} | fields
        assert admits(document, "/v1/files", "application/json", values) == good, fields
        assert caller.create(json=values)[2].status_code == (200 if good else 400), fields


def test_a_form_is_taken_if_the_document_admits_it(document: Document, caller: Caller) -> None:
    for fields, good in FORMS:
        values = {"file": "{}", "purpose": "batch"} | fields
        assert admits(document, "/v1/files", "multipart/form-data", values) == good, fields
        texts = {name: str(value) for name, value in fields.items()}
        assert caller.create(**form(b"{}", **texts))[2].status_code == (200 if good else 400), fields


def test_a_batch_is_taken_if_the_document_admits_it(document: Document, caller: Caller) -> None:
    file = caller.create(**form(line("1")))[2].json()["id"]
    for fields, good in BEGUN:
        values = {"input_file_id": file} | WHOLE | fields
        assert admits(document, "/v1/batches", "application/json", values) == good, fields
        assert caller.begin(file, **fields)[2].status_code == (200 if good else 400), fields


def test_schemathesis_finds_nothing_of_files_and_batches(jobs_plain: PlainServer, key: str, tmp_path: Path) -> None:
    explore(jobs_plain, Role(key, "v1/(files|batches)", 9, 23, 300), tmp_path)
