"""Prices of the table in what is recorded and shown; records are read back from the ledger."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from handler import store
from handler.api.app import create_app
from handler.billing.prices import LISTED, Price, Prices, Row
from handler.service import Service
from handler.settings import Settings
from tests.stack.ministack import Tables

MODEL = "all-minilm-l6-v2"
BODY: dict[str, Any] = {"model": MODEL, "input": "the quick brown fox"}  # 4 tokens


@pytest.fixture(scope="module")
def table(tables: Tables) -> str:
    """A Prices table that no other test's services read."""
    shape = store.dynamodb().describe_table(TableName=tables.prices)["Table"]
    store.dynamodb().create_table(
        TableName="tests-Prices-shown",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=shape["AttributeDefinitions"],
        KeySchema=shape["KeySchema"],
    )
    return "tests-Prices-shown"


@pytest.fixture(scope="module")
def service(minilm: Path, tables: Tables, table: str) -> Service:
    config = Settings(model_dir=str(minilm), keys_table=tables.keys, usage_table=tables.usage, prices_table=table)
    made = Service.open(config)
    made.load()
    return made


@pytest.fixture
def add(table: str, service: Service) -> Iterator[Callable[..., None]]:
    """Write a price down that began a while ago, and let the service forget what it knew."""
    rows: list[Row] = []

    def put(usd: str, batch: str, since: datetime, account: str = LISTED) -> None:
        rows.append(Row(MODEL, account, since, Price(since, Decimal(usd), Decimal(batch))))
        store.dynamodb().put_item(TableName=table, Item=rows[-1].item())
        service._prices._known.clear()

    yield put
    for row in rows:
        store.dynamodb().delete_item(TableName=table, Key=row.key())
    service._prices._known.clear()


def client(service: Service, key: str) -> TestClient:
    return TestClient(create_app(service), headers={"authorization": f"Bearer {key}"}, raise_server_exceptions=False)


def billed(tables: Tables, account: str) -> list[str]:
    """The prices of an account's records, in their order."""
    records = [each for each in tables.records() if each["pk"]["S"].startswith(f"{account}#")]
    return [each["usd_per_mtok"]["N"] for each in sorted(records, key=lambda each: each["sk"]["S"][-40:])]


def test_a_record_has_the_price_of_its_account_at_its_time(
    service: Service, tables: Tables, add: Callable[..., None]
) -> None:
    add("0.02", "0.01", datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1))
    add("0.000001", "0.000001", datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1), "acct_own_price")
    for account, usd in (("acct_own_price", "0.000001"), ("acct_list_price", "0.02")):
        with client(service, tables.create_key(account, "inference")) as http:
            assert http.post("/v1/embeddings", json=BODY).status_code == 200
        assert billed(tables, account) == [usd]


def test_a_price_begins_in_the_middle_of_traffic_and_older_records_keep_theirs(
    service: Service, tables: Tables, table: str, add: Callable[..., None]
) -> None:
    prices = Prices(store.dynamodb, table, {MODEL: service._prices._settled[MODEL]})
    with client(service, tables.create_key("acct_switch", "inference")) as http:
        change = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=3)
        add("0.07", "0.07", change)
        is_over = False
        while not is_over:
            is_over = datetime.now(UTC) > change  # of the last, before it is asked
            assert http.post("/v1/embeddings", json=BODY).status_code == 200
    seen = set()
    for record in tables.records():
        account, day, _ = record["pk"]["S"].split("#")
        if account == "acct_switch":
            minute, _, seconds, _ = record["sk"]["S"].split("#")
            when = datetime.fromisoformat(f"{day}T{minute}:{seconds}+00:00")
            usd = Decimal(record["usd_per_mtok"]["N"])
            assert (
                usd
                == prices.at(MODEL, account, when).of("http")
                == (Decimal("0.07") if when >= change else Decimal("0.01"))
            )
            seen.add(usd)
    assert len(seen) == 2


def test_what_is_shown_is_the_lists_price_and_since_when(
    service: Service, admin_key: str, add: Callable[..., None]
) -> None:
    since = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    add("0.25", "0.0625", since)
    add("9", "9", since, "acct_test")
    with client(service, admin_key) as http:
        [price] = http.get("/v1/pricing").json()["data"]
        shown = [http.get("/v1/models").json()["data"][0], http.get(f"/v1/models/{MODEL}").json()]
        shown += http.get("/api/models").json()
        page = http.get("/").text
    assert (price["input_per_mtok"], price["batch_input_per_mtok"]) == (0.25, 0.0625)
    assert price["effective_at"] == f"{since:%Y-%m-%dT%H:%M:%SZ}"
    assert [row["input_per_mtok"] for row in shown] == [0.25] * 3
    assert "<td>0.25</td>" in page


def test_where_no_price_can_be_known_nothing_is_embedded_or_shown(
    service: Service, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tables.create_key("acct_unpriced", "inference")
    with monkeypatch.context() as patched, client(service, key) as http:
        patched.setattr(service, "_prices", Prices(store.dynamodb, "no-such-table", service._prices._settled))
        answers = [http.post("/v1/embeddings", json=BODY), *(http.get(path) for path in ("/v1/pricing", "/v1/models"))]
        for answer in answers:
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
            assert 1 <= int(answer.headers["retry-after"]) <= 10
        assert http.get("/health").status_code == 200
    assert billed(tables, "acct_unpriced") == []
