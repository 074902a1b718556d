"""Keys with limits through both doors: headers, refusals, and what the SDKs make of them.

The services run with a wall clock that the tests set, so that a minute ends when a test needs it to.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from handler import store
from handler.billing.keys import Caller
from handler.billing.keytable import KeyTable
from handler.billing.limits import Counters
from handler.contract.limits import Demand, Limits
from tests.doors.conftest import ENTRY, ROOT
from tests.doors.test_lambda import DIMENSIONS, LOADS, MODEL, url_event
from tests.stack import node
from tests.stack.emulator import Emulator
from tests.stack.frontdoor import FrontDoor
from tests.stack.ministack import Tables
from tests.stack.server import PlainServer
from tests.stack.wallclock import WallClock

TEXT, TOKENS = "the quick brown fox", 4  # by MODEL's tokenizer
PLENTY = 1_000_000


@dataclass(frozen=True)
class Timed:
    """A service, and the clock it goes by."""

    url: str
    clock: WallClock


@pytest.fixture(scope="module", params=["function", "plain"])
def timed(
    request: pytest.FixtureRequest, service_env: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Timed]:
    """Both doors, one after the other."""
    folder = tmp_path_factory.mktemp("timed")
    clock = WallClock(folder)
    env = {**service_env, **clock.env}
    door: FrontDoor | PlainServer
    if request.param == "function":
        door = FrontDoor(ENTRY, env, cwd=ROOT, size=1)
    else:
        door = PlainServer(env, ROOT, folder / "log")
    with door:
        yield Timed(door.url, clock)


@dataclass(frozen=True)
class Key:
    """A key with limits, and what it has used already."""

    clear: str
    key_id: str
    limits: Limits


@pytest.fixture
def make_key(tables: Tables) -> Callable[[Limits], Key]:
    def make(limits: Limits) -> Key:
        clear, key = KeyTable(store.dynamodb, tables.keys).create("acct_limited", "inference", "tests", limits)
        return Key(clear, key.caller.key_id, limits)

    return make


def use(timed: Timed, tables: Tables, key: Key, tokens: int) -> None:
    """Another instance has served a request with this key."""
    caller = Caller("acct_limited", key.key_id, "inference", key.limits)
    demand = Demand(MODEL, tokens, Decimal(0), timed.clock.now())
    Counters(store.dynamodb, tables.limits, timed.clock.now).take(caller, demand)


def embed(timed: Timed, key: str, **values: Any) -> httpx.Response:
    body = {"model": MODEL, "input": TEXT} | values
    return httpx.post(f"{timed.url}/v1/embeddings", json=body, headers={"authorization": f"Bearer {key}"}, timeout=60)


def told(answer: httpx.Response) -> dict[str, str]:
    """What the answer's headers tell of limits, without the passing time."""
    shown = {name: value for name, value in answer.headers.items() if name.startswith("x-ratelimit-")}
    assert all(0 < seconds(value) <= 60 for name, value in shown.items() if "-reset-" in name)
    return {name: value for name, value in shown.items() if "-reset-" not in name}


def seconds(duration: str) -> float:
    """Of a duration up to a minute."""
    if duration == "1m0s":
        return 60
    return float(duration[:-2]) / 1000 if duration.endswith("ms") else float(duration.removesuffix("s"))


# Headers and refusals


def test_an_answer_tells_what_is_left(timed: Timed, make_key: Callable[[Limits], Key]) -> None:
    timed.clock.set_minute_to_end_in(30)
    key = make_key(Limits(requests_per_minute=10, tokens_per_minute=100))
    embed(timed, key.clear)
    answer = embed(timed, key.clear)
    assert answer.status_code == 200
    assert told(answer) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "8",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": str(100 - 2 * TOKENS),
    }


def test_a_key_without_limits_is_told_of_none_and_counted_nowhere(
    timed: Timed, inference_key: str, tables: Tables
) -> None:
    before = tables.counters()
    answer = embed(timed, inference_key)
    assert (answer.status_code, told(answer)) == (200, {})
    assert tables.counters() == before


@pytest.mark.parametrize("unit", ["requests", "tokens"])
def test_a_minute_that_is_used_up_is_429_until_it_ends(
    timed: Timed, make_key: Callable[[Limits], Key], tables: Tables, unit: str
) -> None:
    start = time.monotonic()
    timed.clock.set_minute_to_end_in(30)
    key = make_key({"requests": Limits(requests_per_minute=1), "tokens": Limits(tokens_per_minute=TOKENS + 1)}[unit])
    assert embed(timed, key.clear).status_code == 200
    records = len(tables.records())
    answer = embed(timed, key.clear)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (429, unit, "rate_limit_exceeded")
    assert f"Rate limit reached for {MODEL} on {unit} per min" in error["message"]
    wait_ms = int(answer.headers["retry-after-ms"])
    assert 30_000 - (time.monotonic() - start) * 1000 < wait_ms <= 30_000
    assert int(answer.headers["retry-after"]) == -(-wait_ms // 1000)
    assert told(answer)[f"x-ratelimit-remaining-{unit}"] == {"requests": "0", "tokens": "1"}[unit]
    assert len(tables.records()) == records


def test_a_month_that_is_used_up_is_429_and_final(
    timed: Timed, make_key: Callable[[Limits], Key], tables: Tables
) -> None:
    key = make_key(Limits(requests_per_minute=1, tokens_per_month=TOKENS))
    assert embed(timed, key.clear).status_code == 200
    records = len(tables.records())
    answer = embed(timed, key.clear)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (429, "insufficient_quota", "insufficient_quota")
    assert f"{TOKENS} tokens per month are used up until 20" in error["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers
    assert told(answer)["x-ratelimit-remaining-requests"] == "0"
    assert len(tables.records()) == records


def test_a_months_money_is_used_by_what_requests_cost_exactly(
    timed: Timed, make_key: Callable[[Limits], Key], tables: Tables
) -> None:
    cost = TOKENS * Decimal("0.01") / 1_000_000  # at the settings' price
    key = make_key(Limits(usd_per_month=2 * cost))
    answers = [embed(timed, key.clear) for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    assert f"{2 * cost:f} USD per month are used up until 20" in answers[2].json()["error"]["message"]
    assert answers[2].headers["x-should-retry"] == "false"


def test_an_accounts_keys_share_its_limit(timed: Timed, tables: Tables) -> None:
    account = f"acct_{uuid.uuid4().hex}"
    keys = KeyTable(store.dynamodb, tables.keys)
    keys.accounts.limit(account, {"requests_per_minute": 2})
    timed.clock.set_minute_to_end_in(30)
    answers = [embed(timed, keys.create(account, "inference", "")[0]) for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    assert [told(each)["x-ratelimit-remaining-requests"] for each in answers] == ["1", "0", "0"]


def test_a_used_up_month_of_an_account_is_told_before_the_minute_of_its_key(timed: Timed, tables: Tables) -> None:
    account = f"acct_{uuid.uuid4().hex}"
    keys = KeyTable(store.dynamodb, tables.keys)
    keys.accounts.limit(account, {"tokens_per_month": TOKENS})
    clear, _ = keys.create(account, "inference", "", Limits(requests_per_minute=1))
    timed.clock.set_minute_to_end_in(30)
    assert embed(timed, clear).status_code == 200
    answer = embed(timed, clear)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "insufficient_quota")
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers
    assert told(answer)["x-ratelimit-remaining-requests"] == "0"


# SDKs, with the retries they have by default

RETRIES = 2


def with_python(timed: Timed, key: str) -> tuple[int, int, str]:
    """How often it asked; the status it ended with, and the error's type."""
    asked: list[object] = []
    http = openai.DefaultHttpxClient(event_hooks={"request": [asked.append]})
    client = openai.OpenAI(base_url=f"{timed.url}/v1", api_key=key, http_client=http)
    assert client.max_retries == RETRIES
    try:
        answer = client.embeddings.create(model=MODEL, input=TEXT)
    except openai.RateLimitError as error:
        return len(asked), error.status_code, str(error.type)
    assert len(answer.data[0].embedding) == DIMENSIONS
    return len(asked), 200, ""


def with_node(timed: Timed, key: str) -> tuple[int, int, str]:
    [answer] = node.embed(f"{timed.url}/v1", key, MODEL, [{"input": TEXT}], retries=RETRIES)
    error = answer.get("error", {"status": 200, "type": ""})
    return answer["attempts"], error["status"], error["type"]


SDKS = {"python": with_python, "node": with_node}


@pytest.mark.parametrize(
    ("sdk", "limits"), [("python", Limits(requests_per_minute=1)), ("node", Limits(tokens_per_minute=TOKENS))]
)
def test_an_sdk_waits_until_the_minute_ends_and_passes(
    timed: Timed, make_key: Callable[[Limits], Key], tables: Tables, sdk: str, limits: Limits
) -> None:
    for ends_in in (3, 10, 30):  # Node may take seconds to start, and first ask when the minute is over
        key = make_key(limits)
        timed.clock.set_minute_to_end_in(ends_in)
        use(timed, tables, key, 1)
        attempts, status, _ = SDKS[sdk](timed, key.clear)
        if attempts > 1:
            break
    assert (attempts, status) in ((2, 200), (3, 200)), "a third where its timer fires a millisecond early"


@pytest.mark.parametrize(
    ("month", "used"),
    [(TOKENS, TOKENS), (TOKENS, 1), (TOKENS - 1, 0)],
    ids=["used up", "too little left", "alone too large"],
)
@pytest.mark.parametrize("sdk", SDKS)
def test_an_sdk_stops_at_once_where_the_month_has_no_room(
    timed: Timed, make_key: Callable[[Limits], Key], tables: Tables, sdk: str, month: int, used: int
) -> None:
    key = make_key(Limits(tokens_per_month=month))
    use(timed, tables, key, used)
    assert SDKS[sdk](timed, key.clear) == (1, 429, "insufficient_quota")


@pytest.mark.parametrize("sdk", SDKS)
def test_an_sdk_stops_at_once_where_its_request_is_too_large_for_a_minute(
    timed: Timed, make_key: Callable[[Limits], Key], sdk: str
) -> None:
    key = make_key(Limits(tokens_per_minute=TOKENS - 1))
    assert SDKS[sdk](timed, key.clear) == (1, 429, "tokens")


# The start, and the price


def test_the_first_request_of_a_key_with_limits_imports_nothing(
    service_env: Mapping[str, str], make_key: Callable[[Limits], Key], tmp_path: Path
) -> None:
    (tmp_path / "loads.py").write_text(LOADS)
    key = make_key(Limits(requests_per_minute=1, tokens_per_minute=PLENTY, tokens_per_month=PLENTY))
    with Emulator(
        ["python", "-m", "awslambdaric", "loads.handler"],
        {**service_env, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        cwd=tmp_path,
    ) as emulator:
        assert [emulator.invoke(url_event(key.clear))["statusCode"] for _ in range(2)] in ([200, 429], [200, 200])
        assert emulator.invoke({}) == []


def test_what_limits_cost_is_told(
    plain: PlainServer, make_key: Callable[[Limits], Key], measured: Callable[[str], None]
) -> None:
    """The part of a request that counts, in the server's own time: one call to DynamoDB, which is MiniStack here."""
    key = make_key(Limits(requests_per_minute=PLENTY, tokens_per_minute=PLENTY, tokens_per_month=PLENTY))
    headers = {"authorization": f"Bearer {key.clear}", "x-emblet-timing": "true"}
    with httpx.Client(base_url=plain.url, headers=headers) as http:
        answers = [http.post("/v1/embeddings", json={"model": MODEL, "input": TEXT}) for _ in range(100)]
    parts = [dict(part.split(";dur=") for part in each.headers["server-timing"].split(", ")) for each in answers]
    assert list(parts[0]) == ["app", "auth", "read", "parse", "tokenize", "limits", "encode", "render", "record"]
    taken, record = (sorted(float(each[part]) for each in parts)[50] for part in ("limits", "record"))
    measured(f"limits of a key: {taken:.2f} ms a request, beside {record:.2f} ms for its record (median, MiniStack)")
