"""What is served and what it costs, through both doors, to the letter of CONTRACT section 7."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from fastapi.testclient import TestClient

from handler.api.app import create_app
from handler.billing import prices
from handler.service import Service
from handler.settings import SettingError, Settings, parse
from tests.api.conftest import MODEL, Door, envelope
from tests.stack.ministack import Tables

ALIAS = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def manifest(minilm: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((minilm / "manifest.json").read_text())
    return found


@pytest.fixture
def config(minilm: Path, tables: Tables) -> Settings:
    return Settings(model_dir=str(minilm), keys_table=tables.keys, usage_table=tables.usage)


@pytest.fixture
def priced(config: Settings, inference_key: str) -> Iterator[TestClient]:
    """A deployment with aliases, a price and its day of its own."""
    settings = parse(
        {
            "MODEL_DIR": config.model_dir,
            "KEYS_TABLE": config.keys_table,
            "USAGE_TABLE": config.usage_table,
            "MODEL_ALIASES": f"text-embedding-3-small={MODEL}, other={ALIAS}",
            "INPUT_PER_MTOK": "0.13",
            "BATCH_FACTOR": "0.25",
            "PRICE_EFFECTIVE_AT": "2026-11-01T01:00:00+01:00",
        }
    )
    with TestClient(create_app(Service.open(settings)), headers={"authorization": f"Bearer {inference_key}"}) as http:
        yield http


# GET /v1/models


def test_a_models_row_is_the_contracts(door: Door, manifest: dict[str, Any]) -> None:
    listed = door.ask("GET", "/v1/models").json()
    assert listed == {
        "object": "list",
        "data": [
            {
                "id": MODEL,
                "object": "model",
                "created": manifest["created"],
                "owned_by": "sentence-transformers",
                "category": "embedding",
                "supports": ["embeddings"],
                "context_window": 256,
                "dimensions": 384,
                "input_per_mtok": 0.01,
                "output_per_mtok": 0,
                "aliases": ["all-MiniLM-L6-v2", ALIAS],
                "quantization": "int8",
                "weights": "real",
                "revision": manifest["revision"],
            }
        ],
    }


def test_after_the_models_comes_a_row_for_each_alias_that_pickers_find_by_the_word_embed(priced: TestClient) -> None:
    row, alias = priced.get("/v1/models").json()["data"]
    assert row["aliases"] == ["all-MiniLM-L6-v2", ALIAS, "text-embedding-3-small", "other"]
    assert alias == row | {"id": "text-embedding-3-small", "alias_of": MODEL}


@pytest.mark.parametrize("path", ["/v1/models", "/models/", f"/v1/models/{MODEL}"])
def test_models_need_a_key_of_any_role(door: Door, admin_key: str, path: str) -> None:
    assert door.ask("GET", path, headers={"authorization": f"Bearer {admin_key}"}).status_code == 200
    answer = door.ask("GET", path, headers={"authorization": ""})
    assert (answer.status_code, envelope(answer)["code"]) == (401, None)


# GET /v1/models/{id}


@pytest.mark.parametrize("name", [MODEL, ALIAS, ALIAS.replace("/", "%2F"), ALIAS.replace("/", "%2f"), f"{ALIAS}/"])
def test_one_model_is_found_by_id_and_alias_with_slashes_in_either_form(door: Door, name: str) -> None:
    [row] = door.ask("GET", "/v1/models").json()["data"]
    asked = name.replace("%2F", "/").replace("%2f", "/").rstrip("/")
    extra = {} if asked == MODEL else {"id": asked, "alias_of": MODEL}
    assert door.ask("GET", f"/v1/models/{name}").json() == row | extra
    assert door.ask("GET", f"/models/{name}").json() == row | extra


def test_the_sdk_finds_them_too(door: Door, inference_key: str) -> None:
    client = openai.OpenAI(base_url=f"{door.url}/v1", api_key=inference_key, max_retries=0)
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(ALIAS).id == ALIAS
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("nobody/nothing")
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("name", ["none", "all-MiniLM-l6-V2", "a/b/c", "%20", "a%0Ab", "Ω"])
def test_an_unknown_model_is_404(door: Door, name: str) -> None:
    answer = door.ask("GET", f"/v1/models/{name}")
    assert answer.status_code == 404
    shown = {"%20": " "}.get(name, name)
    assert envelope(answer) == {
        "message": f"The model '{shown}' does not exist or you do not have access to it.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


# GET /v1/pricing


def test_prices_are_public_and_the_contracts(door: Door, manifest: dict[str, Any]) -> None:
    found = door.ask("GET", "/v1/pricing", headers={"authorization": ""}).json()
    generated = datetime.fromisoformat(found.pop("generated_at"))
    assert found == {
        "object": "list",
        "data": [
            {
                "model": MODEL,
                "currency": "USD",
                "effective_at": f"{datetime.fromtimestamp(manifest['created'], UTC):%Y-%m-%dT%H:%M:%SZ}",
                "input_per_mtok": 0.01,
                "output_per_mtok": 0,
                "cached_input_per_mtok": None,
                "unit_price_usd": None,
                "billing_unit": "tokens",
                "resolution_tier": None,
                "quality_tier": None,
                "batch_input_per_mtok": 0.005,
            }
        ],
    }
    assert abs(datetime.now(UTC) - generated) < timedelta(minutes=1)


def test_the_price_its_batch_factor_and_its_beginning_are_settings(priced: TestClient) -> None:
    [price] = priced.get("/v1/pricing").json()["data"]
    assert (price["input_per_mtok"], price["batch_input_per_mtok"]) == (0.13, 0.0325)
    assert price["effective_at"] == "2026-11-01T00:00:00Z"
    assert {row["input_per_mtok"] for row in priced.get("/v1/models").json()["data"]} == {0.13}
    assert priced.get("/api/models").json()[0]["input_per_mtok"] == 0.13


def test_a_record_is_billed_at_the_settings_price(config: Settings) -> None:
    model = Service.open(parse({**_environment(config), "INPUT_PER_MTOK": "0.000002"})).models.find(MODEL)
    assert model.input_per_mtok == Decimal("0.000002")  # to the last digit: it is what a record keeps


@pytest.mark.parametrize("text", ["-1", "1e-2", "NaN", "Infinity", "0,01", ".5", "1" * 10, "0." + "1" * 13, "٣"])
@pytest.mark.parametrize("name", ["INPUT_PER_MTOK", "BATCH_FACTOR"])
def test_a_price_that_is_no_plain_decimal_ends_the_start(name: str, text: str) -> None:
    with pytest.raises(SettingError, match=f"{name}={text}: expected a decimal number"):
        parse({name: text})


@pytest.mark.parametrize("text", ["soon", "2026-11-01", "2026-11-01T00:00:00", "2026-13-01T00:00:00Z"])
def test_a_beginning_that_is_no_time_with_a_zone_ends_the_start(text: str) -> None:
    with pytest.raises(SettingError, match=f"PRICE_EFFECTIVE_AT={text}"):
        prices.settled(Settings(price_effective_at=text), 0)


# GET /api/models


def test_the_catalogue_is_public_and_a_bare_array(door: Door) -> None:
    assert door.ask("GET", "/api/models", headers={"authorization": ""}).json() == [
        {
            "slug": MODEL,
            "model_name": MODEL,
            "display_name": "ALL MINILM L6 V2",
            "description": "English sentence embeddings, 384 dimensions, 256 tokens of context.",
            "category": "embedding",
            "context_window": 256,
            "max_output": 0,
            "input_per_mtok": 0.01,
            "output_per_mtok": 0,
            "supports": ["embeddings"],
            "pricing": [],
            "health_status": "healthy",
            "provider": "sentence-transformers",
        }
    ]


def test_a_model_that_is_not_loaded_is_unhealthy(config: Settings) -> None:
    with TestClient(create_app(Service.open(config))) as http:
        assert http.get("/api/models").json()[0]["health_status"] == "unhealthy"


def _environment(config: Settings) -> dict[str, str]:
    return {"MODEL_DIR": config.model_dir, "KEYS_TABLE": config.keys_table, "USAGE_TABLE": config.usage_table}
