"""`/metrics`: on a plain HTTP host that asks for it, and nowhere else."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from handler.api.app import create_app
from handler.service import Service
from handler.settings import Settings
from tests.api.conftest import MODEL
from tests.stack.ministack import Tables

LINE = re.compile(r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [0-9.e+-]+')


@pytest.fixture
def config(minilm: Path, tables: Tables) -> Settings:
    return Settings(model_dir=str(minilm), keys_table=tables.keys, usage_table=tables.usage, metrics="on")


@pytest.fixture
def http(config: Settings, inference_key: str) -> Iterator[TestClient]:
    service = Service.open(config)
    headers = {"authorization": f"Bearer {inference_key}"}
    with TestClient(create_app(service), headers=headers, raise_server_exceptions=False) as client:
        assert "emblet_ready 0" in read(client)
        service.load()
        yield client


def read(http: TestClient) -> set[str]:
    """The lines of samples."""
    answer = http.get("/metrics", headers={"authorization": ""})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert answer.text.endswith("\n")
    return {line for line in answer.text.splitlines() if not line.startswith("#")}


def test_it_counts_requests_by_route_method_and_status_and_the_tokens_embedded(http: TestClient) -> None:
    body = {"model": MODEL, "input": "the quick brown fox"}
    for path in ("/v1/embeddings", "/embeddings/", "//v1//embeddings"):
        assert http.post(path, json=body).status_code == 200
    http.post("/v1/embeddings", json={})
    http.get("/v1/models/none")
    http.head("/health")
    http.options("/health")
    found = read(http)
    assert {
        "emblet_ready 1",
        "emblet_tokens_total 12",
        'emblet_requests_total{route="/v1/embeddings",method="POST",status="200"} 3',
        'emblet_requests_total{route="/v1/embeddings",method="POST",status="400"} 1',
        'emblet_requests_total{route="/v1/models/{name:path}",method="GET",status="404"} 1',
        'emblet_requests_total{route="/health",method="HEAD",status="200"} 1',
        'emblet_requests_total{route="/health",method="OPTIONS",status="204"} 1',
    } <= found
    assert all(LINE.fullmatch(line) for line in found)


def test_it_has_histograms_of_time_and_of_bytes(http: TestClient) -> None:
    sent = http.post("/v1/embeddings", json={"model": MODEL, "input": "x"}, headers={"accept-encoding": "gzip"})
    length = sent.headers["content-length"]
    http.head("/v1/embeddings")
    found = read(http)
    where = 'route="/v1/embeddings"'
    assert f"emblet_request_body_bytes_sum{{{where}}} {float(len(sent.request.content))}" in found
    assert f"emblet_response_body_bytes_sum{{{where}}} {float(length)}" in found
    assert f'emblet_response_body_bytes_bucket{{{where},le="1024"}} 1' in found  # the HEAD, without a body
    assert f'emblet_response_body_bytes_bucket{{{where},le="4096"}} 2' in found
    for name in ("emblet_request_seconds", "emblet_request_body_bytes", "emblet_response_body_bytes"):
        assert f'{name}_bucket{{{where},le="+Inf"}} 2' in found
        assert f"{name}_count{{{where}}} 2" in found


def test_it_refuses_a_coded_body_as_every_route_does(http: TestClient) -> None:
    assert http.get("/metrics", headers={"content-encoding": "gzip"}).status_code == 415


def test_what_callers_make_up_makes_no_series(http: TestClient) -> None:
    for number in range(3):
        http.request(f"METHOD{number}", f"/nowhere/{number}")
    assert 'emblet_requests_total{route="other",method="other",status="404"} 3' in read(http)


def test_an_exception_of_our_own_is_counted_as_the_500_it_was(
    http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Service, "read", lambda *_: 1 / 0)
    http.post("/v1/embeddings", json={})
    assert 'emblet_requests_total{route="/v1/embeddings",method="POST",status="500"} 1' in read(http)


@pytest.mark.parametrize("setting", [{"metrics": "off"}, {"aws_lambda_runtime_api": "127.0.0.1:9001"}])
def test_off_and_on_lambda_it_is_an_unknown_route(config: Settings, setting: dict[str, str]) -> None:
    with TestClient(create_app(Service.open(Settings(**{**vars(config), **setting})))) as http:
        answer = http.get("/metrics")
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "Invalid URL (GET /metrics)"
