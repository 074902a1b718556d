"""Limits in money, and those of accounts; MiniStack executes DynamoDB's conditions and numbers exactly."""

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from handler import store
from handler.billing.limits import Counters
from handler.contract.errors import ApiError
from handler.contract.limits import NO_LIMITS, Limits
from tests.billing.conftest import NOON, Clock, caller, counted, demand, item
from tests.stack import faults
from tests.stack.ministack import MiniStack, Tables

HOUSE = Path(__file__).resolve().parents[2]
PICO = Decimal("0.000000000001")


@pytest.fixture
def account(key_id: str) -> str:
    """One that has used nothing."""
    return f"acct_{key_id}"


# Money


def test_a_month_in_money_is_used_to_the_last_picodollar_and_no_further(
    counters: Counters, tables: Tables, key_id: str
) -> None:
    who = caller(key_id, Limits(usd_per_month=Decimal("0.000000000010")))
    counters.take(who, demand(3, "0.000000000004"))
    counters.take(who, demand(5, "0.000000000005"))
    before = item(tables, key_id)
    with pytest.raises(ApiError) as refused:
        counters.take(who, demand(2, "0.000000000002"))
    assert item(tables, key_id) == before, "a refused request has counted nothing"
    assert (refused.value.problem.type, refused.value.headers["x-should-retry"]) == ("insufficient_quota", "false")
    assert (
        "limit is 0.000000000010 per month, of which 0.000000000009 are used until 2026-12-01T00:00:00Z"
        in refused.value.message
    )
    counters.take(who, demand(1, PICO))
    assert counted(tables, key_id)["usd@2026-11"] == 10 * PICO


def test_large_and_small_amounts_add_up_exactly(counters: Counters, tables: Tables, key_id: str) -> None:
    who = caller(key_id, Limits(usd_per_month=Decimal(999_999_999)))
    counters.take(who, demand(1, "999999998.999999999999"))
    counters.take(who, demand(1, PICO))
    assert counted(tables, key_id)["usd@2026-11"] == 999_999_999
    with pytest.raises(ApiError):
        counters.take(who, demand(1, PICO))


def test_money_is_counted_where_it_has_no_limit_yet(counters: Counters, tables: Tables, key_id: str) -> None:
    counters.take(caller(key_id, Limits(requests_per_minute=9)), demand(1, "0.9"))
    with pytest.raises(ApiError, match="insufficient_quota"):
        counters.take(caller(key_id, Limits(usd_per_month=Decimal(1))), demand(1, "0.2"))


# Accounts


def test_an_accounts_keys_share_its_limits(counters: Counters, tables: Tables, key_id: str, account: str) -> None:
    of_account = Limits(requests_per_minute=3, usd_per_month=Decimal(1))
    for number in range(3):
        counters.take(caller(f"{key_id}-{number}", NO_LIMITS, of_account, account), demand(5, "0.1"))
    with pytest.raises(ApiError, match="rate_limit_exceeded"):
        counters.take(caller(f"{key_id}-9", NO_LIMITS, of_account, account), demand(5, "0.1"))
    assert counted(tables, f"account#{account}") == {
        "requests@2026-11-24T12:00": 3,
        "tokens@2026-11-24T12:00": 15,
        "tokens@2026-11": 15,
        "usd@2026-11": Decimal("0.3"),
    }
    assert item(tables, f"{key_id}-0") == {}, "a key without limits has no item"


def test_a_request_counts_on_its_key_first_and_then_on_its_account(
    counters: Counters, tables: Tables, key_id: str, account: str
) -> None:
    of_key, of_account = Limits(tokens_per_minute=10), Limits(tokens_per_minute=6)
    who = caller(key_id, of_key, of_account, account)
    counters.take(who, demand(4))
    with pytest.raises(ApiError) as refused:
        counters.take(who, demand(4))
    assert "Limit 6, Used 4, Requested 4" in refused.value.message
    assert counted(tables, key_id)["tokens@2026-11-24T12:00"] == 8, "counted on its key, refused by its account"
    assert counted(tables, f"account#{account}")["tokens@2026-11-24T12:00"] == 4
    with pytest.raises(ApiError) as refused:
        counters.take(who, demand(4))
    assert "Limit 10, Used 8, Requested 4" in refused.value.message
    assert counted(tables, f"account#{account}")["tokens@2026-11-24T12:00"] == 4, "refused by its key, asked no more"


@pytest.mark.parametrize(
    ("of_key", "rate"), [(Limits(requests_per_minute=1), "requests"), (Limits(tokens_per_minute=5), "tokens")]
)
@pytest.mark.parametrize(
    ("of_account", "unit"),
    [(Limits(tokens_per_month=7), "tokens"), (Limits(requests_per_minute=9, usd_per_month=Decimal("0.7")), "USD")],
)
def test_an_account_whose_month_is_used_up_is_told_so_where_its_keys_minute_is_too(
    counters: Counters,
    tables: Tables,
    key_id: str,
    account: str,
    of_key: Limits,
    rate: str,
    of_account: Limits,
    unit: str,
) -> None:
    """Waiting for the next minute would not help. Nothing is counted by finding out."""
    who = caller(key_id, of_key, of_account, account)
    counters.take(who, demand(4, "0.4"))
    before = item(tables, key_id), item(tables, f"account#{account}")
    with pytest.raises(ApiError, match="insufficient_quota") as refused:
        counters.take(who, demand(4, "0.4"))
    assert f"{unit}; the limit is" in refused.value.message
    assert "until 2026-12-01" in refused.value.message
    assert refused.value.headers["x-should-retry"] == "false"
    assert not {"retry-after", "retry-after-ms"} & refused.value.headers.keys()
    assert refused.value.headers[f"x-ratelimit-remaining-{rate}"] == ("0" if rate == "requests" else "1")
    with pytest.raises(ApiError, match="rate_limit_exceeded") as refused:
        counters.take(who, demand(3, "0.3"))
    assert refused.value.problem.type == rate, "for so little there is room in the month"
    assert before == (item(tables, key_id), item(tables, f"account#{account}"))


def test_where_an_accounts_counters_cannot_be_read_its_keys_own_limit_is_told(
    tables: Tables, clock: Clock, key_id: str, account: str
) -> None:
    who = caller(key_id, Limits(requests_per_minute=1), Limits(tokens_per_month=4), account)
    client = faults.client("GetItem", 2, code="ThrottlingException", status=400, done=False)
    counters = Counters(lambda: client, tables.limits, clock)
    counters.take(who, demand(4))
    with pytest.raises(ApiError, match="rate_limit_exceeded"):
        counters.take(who, demand(4))
    with pytest.raises(ApiError, match="insufficient_quota"):
        counters.take(who, demand(4))


def test_only_a_key_that_is_refused_reads_its_accounts_counters(
    counters: Counters, key_id: str, account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.dynamodb(), "get_item", None)
    counters.take(caller(key_id, Limits(requests_per_minute=1), Limits(tokens_per_month=4), account), demand(4))
    with pytest.raises(ApiError, match="insufficient_quota"):
        counters.take(caller(key_id, Limits(tokens_per_month=4), Limits(tokens_per_month=4), account), demand(4))
    with pytest.raises(ApiError, match="rate_limit_exceeded"):
        counters.take(caller(key_id, Limits(requests_per_minute=1), NO_LIMITS, account), demand(4))


def test_headers_tell_of_the_tighter_limit_of_each_unit(counters: Counters, key_id: str, account: str) -> None:
    of_key = Limits(requests_per_minute=10, tokens_per_minute=1000)
    of_account = Limits(requests_per_minute=100, tokens_per_minute=50)
    told = counters.take(caller(key_id, of_key, of_account, account), demand(5))
    assert {name: value for name, value in told.items() if "reset" not in name} == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-limit-tokens": "50",
        "x-ratelimit-remaining-tokens": "45",
    }
    with pytest.raises(ApiError) as refused:
        counters.take(caller(key_id, of_key, of_account, account), demand(46))
    assert refused.value.headers["x-ratelimit-remaining-requests"] == "8"
    assert (refused.value.headers["x-ratelimit-remaining-tokens"], refused.value.headers["retry-after"]) == ("45", "30")


def test_an_account_whose_update_is_lost_refuses_and_the_key_stays_ahead(
    tables: Tables, clock: Clock, key_id: str, account: str
) -> None:
    limits = Limits(tokens_per_minute=10)
    client = faults.client("UpdateItem", 2, code="ThrottlingException", status=400, done=False)
    with pytest.raises(store.StoreUnavailableError):
        Counters(lambda: client, tables.limits, clock).take(caller(key_id, NO_LIMITS, limits, account), demand(4))
    assert item(tables, f"account#{account}") == {}


# Hours


def test_an_hours_fields_are_those_of_when_it_was_counted(counters: Counters, tables: Tables, key_id: str) -> None:
    who = caller(key_id, Limits(tokens_per_month=100))
    counters.take(who, demand(1, "0.1", NOON))
    counters.take(who, demand(2, "0.2", NOON - 31))  # it came before the hour's turn, and is counted after
    counters.take(who, demand(7, "0.7", NOON - 3 * 86400))  # of a batch
    assert counted(tables, key_id, "tokens") == {
        "tokens@2026-11-24T12:00": 10,
        "tokens@2026-11-24T12": 10,
        "tokens@2026-11": 10,
    }
    assert counted(tables, key_id, "usd")["usd@2026-11-24T12"] == 1


def test_a_month_is_that_of_the_record_whenever_it_is_counted(counters: Counters, tables: Tables, key_id: str) -> None:
    limits = Limits(tokens_per_month=10)
    counters.take(caller(key_id, limits), demand(7, "0.1", NOON - 25 * 86400))
    counters.take(caller(key_id, limits), demand(9))
    assert counted(tables, key_id, "tokens") == {
        "tokens@2026-11-24T12:00": 16,
        "tokens@2026-10/2026-11-24T12": 7,
        "tokens@2026-11-24T12": 9,
        "tokens@2026-10": 7,
        "tokens@2026-11": 9,
    }
    with pytest.raises(ApiError, match="insufficient_quota") as refused:
        counters.take(caller(key_id, limits), demand(4, at=NOON - 25 * 86400))
    assert "are used until 2026-11-01" in refused.value.message


def test_hours_that_nothing_corrects_are_forgotten_before_the_item_grows(
    counters: Counters, tables: Tables, clock: Clock, key_id: str
) -> None:
    for _ in range(60):
        clock.now += 3600
        counters.take(caller(key_id, Limits(tokens_per_month=10**9)), demand(1, at=clock.now))
    hours = [name for name in counted(tables, key_id, "tokens") if len(name) == len("tokens@2026-11-24T12")]
    assert len(hours) == 49  # the one that is, and two days
    assert counted(tables, key_id)["tokens@2026-11"] == 60


# Many callers

CALLER = """
import json, random, sys
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from handler.billing.keys import Caller
from handler.billing.limits import Counters
from handler.contract.errors import ApiError
from handler.contract.limits import NO_LIMITS, Demand, Limits
from tests.stack import patience

table, account, now, field, limit, scope, seed = sys.argv[1:]
client = patience.client(50)
counters, chance = Counters(lambda: client, table, lambda: float(now)), random.Random(int(seed))
limits = Limits(**{field: Decimal(limit) if field == "usd_per_month" else int(limit)})
key = "key_of_" + account

def call(number):
    tokens = chance.randint(1, 9)
    usd = tokens * Decimal("0.000000000001") * chance.randint(1, 3)
    caller = Caller(account, key, "inference", limits) if scope == "key" else Caller(
        account, f"{key}-{number % 8}", "inference", NO_LIMITS, limits)
    try:
        counters.take(caller, Demand("bge-m3", tokens, usd, float(now)))
    except ApiError:
        return [False, tokens, str(usd)]
    return [True, tokens, str(usd)]

with ThreadPoolExecutor(50) as threads:
    print(json.dumps(list(threads.map(call, range(75)))))
"""


@pytest.mark.parametrize("scope", ["key", "account"])
@pytest.mark.parametrize(
    ("field", "limit", "unit"),
    [
        ("requests_per_minute", "101", "requests@2026-11-24T12:00"),
        ("tokens_per_minute", "501", "tokens@2026-11-24T12:00"),
        ("tokens_per_month", "501", "tokens@2026-11"),
        ("usd_per_month", "0.000000001001", "usd@2026-11"),
    ],
)
def test_of_two_hundred_callers_in_four_processes_never_more_passes_than_any_limit(
    tables: Tables, ministack: MiniStack, account: str, scope: str, field: str, limit: str, unit: str
) -> None:
    words = [sys.executable, "-c", CALLER, tables.limits, account, str(NOON), field, limit, scope]
    processes = [
        subprocess.Popen([*words, str(seed)], cwd=HOUSE, env=ministack.env, stdout=subprocess.PIPE) for seed in range(4)
    ]
    outcomes = [outcome for each in processes for outcome in json.loads(each.communicate(timeout=120)[0])]
    asked = {"requests": lambda _, __: 1, "tokens": lambda tokens, _: tokens, "usd": lambda _, usd: Decimal(usd)}
    amounts = [(passed, Decimal(asked[unit.partition("@")[0]](tokens, usd))) for passed, tokens, usd in outcomes]
    used = sum(amount for passed, amount in amounts if passed)
    smallest_refused = min(amount for passed, amount in amounts if not passed)

    assert len(outcomes) == 300
    assert Decimal(limit) - smallest_refused < used <= Decimal(limit)
    owner = f"account#{account}" if scope == "account" else f"key_of_{account}"
    assert Decimal(item(tables, owner)[unit]["N"]) == used
