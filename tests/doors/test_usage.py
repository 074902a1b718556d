"""Usage and costs at both doors: as the official SDKs ask for them, to the letter, and who may not."""

import gzip
import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from handler import store
from handler.billing.buckets import line_item
from handler.billing.ledger import Record
from handler.billing.minutes import Minutes
from handler.billing.recount import Recount
from handler.billing.rollups import Rollups
from tests.conftest import HOUSE
from tests.doors.conftest import Server
from tests.stack import node, spending
from tests.stack.ministack import Tables
from tests.stack.server import PlainServer
from tests.stack.spending import EDGES

ACCOUNTS = ("acct_use_a", "acct_use_b")
MINE = ACCOUNTS[0]
FIRST, LAST = (int(edge.timestamp()) for edge in (EDGES[0], EDGES[-1]))
USAGE, COSTS, OWN = "/v1/organization/usage/embeddings", "/v1/organization/costs", "/v1/usage"
HOUR, DAY = 3600, 86400


@pytest.fixture(scope="module")
def records(tables: Tables) -> list[Record]:
    made = spending.made_up(2, ACCOUNTS, 240)
    spending.write(tables, made)
    return made


@pytest.fixture(scope="module")
def mine(records: list[Record]) -> list[Record]:
    return [record for record in records if record.account == MINE]


@pytest.fixture(scope="module")
def admin(tables: Tables) -> str:
    return tables.create_key(MINE, "admin")


@pytest.fixture(scope="module")
def admin_of_all(tables: Tables) -> str:
    return tables.create_key("*", "admin")


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60) as client:
        yield client


def get(client: httpx.Client, server: Server, key: str, path: str) -> httpx.Response:
    return client.get(server.url + path, headers={"authorization": f"Bearer {key}"} if key else {})


def refusal(answer: httpx.Response) -> tuple[int, str | None, str | None]:
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return answer.status_code, error["code"], error["param"]


def sdk(server: Server, key: str) -> Any:
    """The admin's part of the official SDK; the key goes where the SDK says."""
    found = openai.OpenAI(base_url=f"{server.url}/v1", admin_api_key=key, api_key="unused", max_retries=0)
    return found.admin.organization.usage


def sdk_of(server: Server, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


# The official SDKs


def test_the_python_sdk_reads_usage_page_by_page(server: Server, admin: str, mine: list[Record]) -> None:
    asked: dict[str, Any] = {"start_time": FIRST - DAY, "end_time": LAST + DAY, "bucket_width": "1h", "limit": 24}
    asked |= {
        "group_by": ["api_key_id", "model"],
        "models": ["bge-m3"],
        "api_key_ids": [f"key_{MINE}_{n}" for n in (1, 2)],
    }
    usage = sdk(server, admin)
    page = usage.embeddings(**asked)
    buckets, pages = [*page.data], 1
    while page.has_more:
        page = usage.embeddings(**asked, page=page.next_page)
        buckets += page.data
        pages += 1

    assert pages == len(buckets) / 24 == 4
    found = {
        (bucket.start_time, each.api_key_id, each.model): (each.input_tokens, each.num_model_requests)
        for bucket in buckets
        for each in bucket.results
    }
    assert {each.project_id for bucket in buckets for each in bucket.results} == {None}
    counted = [record for record in mine if record.model == "bge-m3" and record.key_id in asked["api_key_ids"]]
    sums = spending.spent(counted, lambda record: (spending.starts(record, HOUR), record.key_id, record.model))
    assert found == {label: (tokens, requests) for label, (tokens, requests, _) in sums.items()}


def test_the_python_sdk_reads_costs(server: Server, admin_of_all: str, records: list[Record]) -> None:
    lines = ["bge-m3, input_tokens", "bge-m3, batch input_tokens"]
    page = sdk(server, admin_of_all).costs(
        start_time=FIRST - DAY,
        end_time=LAST + DAY,
        bucket_width="1d",
        limit=180,
        group_by=["project_id", "line_item", "api_source"],
        project_ids=[*ACCOUNTS],
        line_items=lines,
    )
    assert not page.has_more
    found = {
        (bucket.start_time, each.project_id, each.line_item): (each.quantity, each.amount.value, each.amount.currency)
        for bucket in page.data
        for each in bucket.results
    }
    results = [each for bucket in page.data for each in bucket.results]
    assert {(each.quantity_unit, each.api_source, each.api_key_id) for each in results} == {
        ("tokens", "unlabeled", None)
    }
    sums = spending.spent(
        (record for record in records if record.model == "bge-m3"),
        lambda record: (spending.starts(record, DAY), record.account, line_item(record.model, record.work.door)),
    )
    assert found == {label: (tokens, float(usd), "usd") for label, (tokens, _, usd) in sums.items()}


def test_the_node_sdk_reads_the_same(server: Server, admin: str, client: httpx.Client, mine: list[Record]) -> None:
    asked: dict[str, Any] = {"start_time": FIRST, "end_time": LAST, "bucket_width": "1h", "limit": 40}
    asked |= {"group_by": ["model", "api_key_id"], "models": ["bge-m3"], "page": None}
    costs = {"start_time": FIRST - DAY, "group_by": ["line_item"], "line_items": ["bge-m3, batch input_tokens"]}
    first, spent, wrong = node.usage(
        f"{server.url}/v1", admin, [("embeddings", asked), ("costs", costs), ("embeddings", {"start_time": -1})]
    )
    [second] = node.usage(f"{server.url}/v1", admin, [("embeddings", asked | {"page": first["next_page"]})])

    assert [first["has_more"], second["has_more"]] == [True, False]
    plain = (
        "start_time={start_time}&end_time={end_time}&bucket_width=1h&limit=168&group_by=api_key_id,model&models=bge-m3"
    )
    whole = get(client, server, admin, f"{USAGE}?{plain.format(**asked)}").json()
    assert first["data"] + second["data"] == whole["data"]
    assert any(bucket["results"] for bucket in whole["data"])
    lines = [each["line_item"] for bucket in spent["data"] for each in bucket["results"]]
    assert {*lines} == {"bge-m3, batch input_tokens"}
    assert (wrong["error"]["name"], wrong["error"]["param"]) == ("BadRequestError", "start_time")


# To the letter


def test_a_page_of_usage_has_the_contracts_fields_in_its_order(
    server: Server, admin: str, client: httpx.Client, mine: list[Record]
) -> None:
    answer = get(client, server, admin, f"{USAGE}?start_time={FIRST}&end_time={FIRST + 1}")
    tokens, requests, _ = spending.spent(mine, lambda record: spending.starts(record, DAY))[FIRST]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["openai-organization"] == MINE
    assert answer.text == (
        f'{{"object":"page","data":[{{"object":"bucket","start_time":{FIRST},"end_time":{FIRST + DAY},"results":['
        f'{{"object":"organization.usage.embeddings.result","input_tokens":{tokens},"num_model_requests":{requests},'
        '"project_id":null,"user_id":null,"api_key_id":null,"model":null}]}],"has_more":false,"next_page":null}'
    )


def test_a_page_of_costs_has_the_contracts_fields_in_its_order_and_every_decimal(
    server: Server, admin: str, client: httpx.Client, mine: list[Record]
) -> None:
    answer = get(client, server, admin, f"{COSTS}?start_time={FIRST}&end_time={FIRST + 1}")
    *_, usd = spending.spent(mine, lambda record: spending.starts(record, DAY))[FIRST]
    [bucket] = json.loads(answer.text, parse_float=Decimal)["data"]
    amount = bucket["results"][0]["amount"]["value"]
    assert Fraction(amount) == usd
    assert len(amount.as_tuple().digits) > 17  # more than a float holds: it was not rounded
    assert answer.text == (
        f'{{"object":"page","data":[{{"object":"bucket","start_time":{FIRST},"end_time":{FIRST + DAY},"results":['
        f'{{"object":"organization.costs.result","amount":{{"value":{amount:f},"currency":"usd"}},"line_item":null,'
        '"project_id":null,"user_id":null,"api_key_id":null,"api_source":null,"quantity":null,"quantity_unit":null}]}],'
        '"has_more":false,"next_page":null}'
    )


def test_a_bucket_without_usage_is_there_and_empty(server: Server, admin: str, client: httpx.Client) -> None:
    page = get(client, server, admin, f"{USAGE}?start_time=0&end_time=60&bucket_width=1m").json()
    assert page["data"] == [{"object": "bucket", "start_time": 0, "end_time": 60, "results": []}]


@pytest.mark.parametrize("role", ["inference", "admin"])
def test_own_usage_has_the_contracts_fields_in_its_order(
    server: Server, tables: Tables, client: httpx.Client, role: str
) -> None:
    answer = get(client, server, tables.create_key("acct_use_none", role), f"{OWN}?days=7")
    assert answer.text == (
        '{"object":"usage","days":7,"currency":"USD","total_spend":0,"total_tokens":0,"total_requests":0,'
        '"models":[],"daily":[]}'
    )


@pytest.mark.parametrize("path", [f"{USAGE}?start_time={FIRST}&limit=1", f"{COSTS}?start_time={FIRST}&limit=1", OWN])
def test_head_slashes_and_a_missing_v1_are_as_everywhere(
    server: Server, admin: str, client: httpx.Client, path: str
) -> None:
    name, _, query = path.partition("?")
    wanted = get(client, server, admin, path)
    assert wanted.status_code == 200
    for spelt in (f"{name}/", f"/{name}", name.removeprefix("/v1")):
        answer = get(client, server, admin, f"{spelt}?{query}")
        if "next_page" in wanted.json():
            # Its token ends at the day of each call's now, which is the same but at midnight.
            assert answer.json()["data"] == wanted.json()["data"]
        assert answer.status_code == 200
    head = client.head(server.url + path, headers={"authorization": f"Bearer {admin}"})
    assert (head.status_code, head.content) == (200, b"")
    assert client.options(server.url + path).headers["allow"] == "GET, HEAD, OPTIONS"


def test_a_long_page_is_gzipped_for_who_accepts_it(server: Server, admin: str, client: httpx.Client) -> None:
    headers = {"authorization": f"Bearer {admin}", "accept-encoding": "gzip"}
    url = f"{server.url}{USAGE}?start_time={FIRST}&bucket_width=1m&limit=1440"
    with client.stream("GET", url, headers=headers) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    assert len(json.loads(gzip.decompress(raw))["data"]) == 1440


# What was embedded


def test_what_an_answer_says_was_used_is_what_its_key_and_its_account_are_told(
    server: Server, tables: Tables, client: httpx.Client
) -> None:
    account = f"acct_use_{uuid.uuid4().hex[:8]}"
    first, second, boss = (tables.create_key(account, role) for role in ("inference", "inference", "admin"))
    used = {first: 0, second: 0}
    for key, text in ((first, "the quick brown fox"), (second, "jumps over the lazy dog"), (second, "")):
        answer = sdk_of(server, key).embeddings.create(model="all-minilm-l6-v2", input=text)
        used[key] += answer.usage.total_tokens

    today = int(time.time()) // DAY * DAY
    with ThreadPoolExecutor(16) as threads:
        minutes = Minutes(store.dynamodb, tables.usage, threads)
        recount = Recount(minutes, Rollups(store.dynamodb, tables.rollups))
        for midnight in (today - DAY, today):  # the requests may have been made in either
            assert all(each.mended for each in recount.day(account, midnight, mend=True))

    told = {key: get(client, server, key, f"{OWN}?days=2").json() for key in (first, second, boss)}
    assert {key: told[key]["total_tokens"] for key in used} == used
    assert [told[key]["total_requests"] for key in (first, second, boss)] == [1, 2, 3]
    assert told[boss]["total_tokens"] == sum(used.values())
    costs = get(client, server, boss, f"{COSTS}?start_time={today - DAY}&group_by=line_item").json()
    [line] = [each for bucket in costs["data"] for each in bucket["results"]]
    assert (line["line_item"], line["quantity"]) == ("all-minilm-l6-v2, input_tokens", sum(used.values()))
    assert Decimal(str(line["amount"]["value"])) == sum(used.values()) * Decimal("0.00000001")


# Who may not, and what is wrong


@pytest.mark.parametrize("path", [f"{USAGE}?start_time=0", f"{COSTS}?start_time=0", USAGE])
def test_an_inference_key_cannot_read_its_accounts_usage(
    server: Server, inference_key: str, client: httpx.Client, path: str
) -> None:
    answer = get(client, server, inference_key, path)
    assert refusal(answer) == (403, "insufficient_permissions", None)  # before what is wrong with the query
    name = path.partition("?")[0]
    assert answer.json()["error"]["message"] == f"This key has the role 'inference'; GET {name} needs 'admin'."


def test_an_admin_key_cannot_embed(server: Server, admin: str, client: httpx.Client) -> None:
    answer = client.post(f"{server.url}/v1/embeddings", headers={"authorization": f"Bearer {admin}"}, json={})
    assert refusal(answer) == (403, "insufficient_permissions", None)


@pytest.mark.parametrize("path", [USAGE, COSTS, OWN])
def test_without_a_key_nothing_is_told(server: Server, client: httpx.Client, path: str) -> None:
    assert refusal(get(client, server, "", path)) == (401, None, None)
    assert refusal(get(client, server, "sk-wrong", path)) == (401, "invalid_api_key", None)


@pytest.mark.parametrize("path", [USAGE, COSTS])
@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("", "missing_required_parameter", "start_time"),
        ("start_time=x", "invalid_value", "start_time"),
        ("start_time=5&end_time=5", "invalid_value", "end_time"),
        ("start_time=0&bucket_width=2d", "invalid_value", "bucket_width"),
        ("start_time=0&limit=0", "invalid_value", "limit"),
        ("start_time=0&limit=181", "invalid_value", "limit"),
        ("start_time=0&group_by[]=key", "invalid_value", "group_by"),
        ("start_time=0&page=2", "invalid_value", "page"),
        ("start_time=0&user_ids[]=user_1", "invalid_value", "user_ids"),
        ("start_time=0&group_bye=model", "invalid_value", "group_bye"),
    ],
)
def test_a_wrong_parameter_is_named(
    server: Server, admin: str, client: httpx.Client, path: str, query: str, code: str, param: str
) -> None:
    assert refusal(get(client, server, admin, f"{path}?{query}")) == (400, code, param)


@pytest.mark.parametrize(("query", "param"), [("days=0", "days"), ("days=366", "days"), ("weeks=1", "weeks")])
def test_so_it_is_with_own_usage(
    server: Server, inference_key: str, client: httpx.Client, query: str, param: str
) -> None:
    assert refusal(get(client, server, inference_key, f"{OWN}?{query}")) == (400, "invalid_value", param)


def test_the_sdk_raises_its_own_classes(server: Server, admin: str, inference_key: str) -> None:
    with pytest.raises(openai.PermissionDeniedError):
        sdk(server, inference_key).costs(start_time=0)
    with pytest.raises(openai.BadRequestError) as refused:
        sdk(server, admin).embeddings(start_time=0, user_ids=["user_1"])
    assert (refused.value.param, refused.value.code) == ("user_ids", "invalid_value")


@pytest.mark.parametrize("rollups", ["", "no-such-table"], ids=["no name", "no table"])
def test_without_rollups_reports_are_a_503_and_all_else_is_served(
    service_env: dict[str, str], tmp_path: Path, admin: str, inference_key: str, client: httpx.Client, rollups: str
) -> None:
    with PlainServer(service_env | {"ROLLUPS_TABLE": rollups}, HOUSE, tmp_path / "log") as server:
        for key, path in ((admin, f"{USAGE}?start_time=0"), (admin, f"{COSTS}?start_time=0"), (inference_key, OWN)):
            answer = get(client, server, key, path)
            assert refusal(answer) == (503, "store_unavailable", None)
            assert answer.headers["retry-after"] == "2"
        assert get(client, server, admin, "/v1/models").status_code == 200
        assert ("ROLLUPS_TABLE is not set" if not rollups else "on no-such-table") in server.log
