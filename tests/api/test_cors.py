"""Calls from other pages' scripts, as a browser makes them (Fetch standard): preflight, then the call itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from handler.api.app import create_app
from handler.service import Service
from handler.settings import SettingError, Settings
from tests.api.conftest import Door
from tests.stack.ministack import Tables

PAGE = "https://app.example.com"
EXPOSED = {
    "x-request-id",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "x-emblet-token-arrays",
    "x-emblet-replay",
}


def preflight(method: str = "POST", headers: str = "authorization,content-type", origin: str = PAGE) -> dict[str, str]:
    """A browser sends no key with it."""
    asked = {"access-control-request-method": method, "access-control-request-headers": headers}
    return {"authorization": "", "origin": origin} | asked


@contextmanager
def served(minilm: Path, tables: Tables, cors_origins: str) -> Iterator[TestClient]:
    """The application under this setting; its model is never asked."""
    config = Settings(
        model_dir=str(minilm), keys_table=tables.keys, usage_table=tables.usage, cors_origins=cors_origins
    )
    with TestClient(create_app(Service.open(config))) as client:
        yield client


def names(answer: Any, header: str) -> set[str]:
    return {name.strip().lower() for name in answer.headers[header].split(",")}


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/models", "//embeddings/", "/invocations"])
def test_a_preflight_is_granted_what_it_asks_for_by_name(door: Door, path: str) -> None:
    asked = preflight(headers="authorization,content-type,x-stainless-lang")
    answer = door.ask("OPTIONS", path, headers=asked)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-methods"] == "POST"
    assert names(answer, "access-control-allow-headers") == {"authorization", "content-type", "x-stainless-lang"}
    assert answer.headers["access-control-max-age"] == "7200"
    assert "access-control-allow-credentials" not in answer.headers


def test_a_preflight_that_asks_for_no_headers_is_granted_none(door: Door) -> None:
    answer = door.ask("OPTIONS", "/v1/pricing", headers=preflight("GET", ""))
    assert answer.status_code == 204
    assert "access-control-allow-headers" not in answer.headers


def test_nothing_but_names_comes_back_from_a_preflight(door: Door) -> None:
    answer = door.ask("OPTIONS", "/v1/models", headers=preflight(headers="a b, authorization, <x>,"))
    assert answer.headers["access-control-allow-headers"] == "authorization"
    assert "access-control-allow-methods" not in door.ask("OPTIONS", "/v1/models", headers=preflight("G T")).headers


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/nothing"), ("DELETE", "/v1/models")])
def test_a_page_that_asks_amiss_gets_past_the_preflight_to_the_error_that_says_so(
    door: Door, method: str, path: str
) -> None:
    assert door.ask("OPTIONS", path, headers=preflight(method)).status_code == 204
    answer = door.ask(method, path, headers={"origin": PAGE})
    assert answer.status_code in (404, 405)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert names(answer, "access-control-expose-headers") == EXPOSED


@pytest.mark.parametrize(
    ("method", "path", "key", "status"),
    [
        ("GET", "/v1/models", True, 200),
        ("GET", "/v1/models", False, 401),
        ("GET", "/v1/models/none", True, 404),
        ("GET", "/v1/nothing", True, 404),
        ("POST", "/v1/models", True, 405),
        ("POST", "/v1/embeddings", True, 400),
        ("GET", "/v1/pricing", False, 200),
    ],
)
def test_every_answer_may_be_read_with_its_headers_errors_too(
    door: Door, method: str, path: str, status: int, *, key: bool
) -> None:
    answer = door.ask(method, path, headers={"origin": PAGE} | ({} if key else {"authorization": ""}))
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == "*"
    assert names(answer, "access-control-expose-headers") == EXPOSED
    assert "Origin" not in answer.headers.get("vary", "")


def test_an_unforeseen_error_may_be_read_too(minilm: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(minilm, tables, "*") as http:
        monkeypatch.setattr(Service, "ready", property(lambda _: 1 / 0))
        answer = http.get("/ready", headers={"origin": PAGE})
    assert answer.status_code == 500
    assert answer.headers["access-control-allow-origin"] == "*"
    assert names(answer, "access-control-expose-headers") == EXPOSED


# Origins by name

LISTED = f"{PAGE}, http://localhost:3000,https://OTHER.example.org"


@pytest.mark.parametrize("origin", [PAGE, "http://localhost:3000", "https://other.example.org"])
def test_a_listed_origin_is_named_and_caches_are_told(minilm: Path, tables: Tables, origin: str) -> None:
    with served(minilm, tables, LISTED) as http:
        call = http.get("/v1/pricing", headers={"origin": origin})
        asked = http.options("/v1/embeddings", headers=preflight(origin=origin))
    for answer in (call, asked):
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize("setting", [LISTED, "none"])
@pytest.mark.parametrize("origin", ["https://evil.example.com", f"{PAGE}.evil.com", "null", "", None])
def test_no_other_origin_may_read_anything(minilm: Path, tables: Tables, setting: str, origin: str | None) -> None:
    headers = {} if origin is None else {"origin": origin}
    with served(minilm, tables, setting) as http:
        answers = [
            http.get("/v1/pricing", headers=headers),
            http.get("/nowhere", headers=headers),
            http.options("/v1/embeddings", headers=preflight() | {"origin": "x"} | headers),
        ]
    for answer in answers:
        assert not {"access-control-allow-origin", "access-control-expose-headers"} & answer.headers.keys()
        assert answer.headers["vary"] == "Origin"


def test_what_varies_by_origin_and_by_coding_says_both(minilm: Path, tables: Tables) -> None:
    with served(minilm, tables, PAGE) as http:
        answer = http.get("/openapi.json", headers={"origin": PAGE, "accept-encoding": "gzip"})
    assert answer.headers["vary"] == "Accept-Encoding, Origin"


@pytest.mark.parametrize(
    "setting", [f"{PAGE}/", f"{PAGE}/path", "app.example.com", f"*,{PAGE}", f"{PAGE},", "https://"]
)
def test_a_setting_that_could_match_nothing_ends_the_start(minilm: Path, tables: Tables, setting: str) -> None:
    with pytest.raises(SettingError, match="CORS_ORIGINS="), served(minilm, tables, setting) as http:
        http.get("/health")
