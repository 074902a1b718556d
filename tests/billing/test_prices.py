"""The Prices table on the emulator that executes DynamoDB: which price a piece of work has, and who knows it when."""

import itertools
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache

import boto3
import pytest
from botocore.config import Config

from handler import store
from handler.billing import pricetool
from handler.billing.buckets import cost
from handler.billing.prices import LEAD_S, LISTED, Price, Prices, Row, settled
from handler.settings import SettingError, Settings
from tests.billing.conftest import NOON, Clock
from tests.stack import tools
from tests.stack.ministack import MiniStack, Tables

START = datetime.fromtimestamp(NOON, UTC)
SETTINGS = Price(START - timedelta(days=365), Decimal("0.01"), Decimal("0.005"))


def hours(number: float) -> datetime:
    return START + timedelta(hours=number)


def price(usd: str, batch: str, since: datetime) -> Price:
    return Price(since, Decimal(usd), Decimal(batch))


_numbers = itertools.count()


@pytest.fixture
def model() -> str:
    """A model without a row."""
    return f"model-{next(_numbers)}"


Add = Callable[..., None]


@pytest.fixture
def add(tables: Tables, model: str) -> Add:
    """Write a row down, whatever the time."""

    def put(usd: str | None, at: datetime, account: str = LISTED) -> None:
        row = Row(model, account, at, price(usd, usd, at) if usd else None)
        store.dynamodb().put_item(TableName=tables.prices, Item=row.item())

    return put


@pytest.fixture
def prices(tables: Tables, clock: Clock, model: str) -> Prices:
    return Prices(store.dynamodb, tables.prices, {model: SETTINGS}, clock)


def now(clock: Clock) -> datetime:
    return datetime.fromtimestamp(clock.now, UTC)


# Which price


def test_without_a_table_the_settings_say_the_price() -> None:
    def no_table() -> object:
        raise AssertionError("a table was asked")

    prices = Prices(no_table, "", {"m": SETTINGS})  # type: ignore[arg-type]
    prices.warm()
    assert prices.at("m", "acct_a", START) == prices.listed("m", START) == SETTINGS


def test_work_has_the_newest_price_that_had_begun_by_its_time(prices: Prices, model: str, add: Add) -> None:
    add("0.02", hours(-2))
    add("0.03", hours(-1))
    add("0.04", hours(1))
    times = (hours(-3), hours(-2), hours(-1) - timedelta(microseconds=1), hours(-1), START, hours(1), hours(99))
    found = [str(prices.at(model, "acct_a", each).of("http")) for each in times]
    assert found == ["0.01", "0.02", "0.02", "0.03", "0.03", "0.04", "0.04"]


def test_an_account_has_its_own_price_until_that_ends(prices: Prices, model: str, add: Add) -> None:
    add("0.02", hours(-9))
    add("0.001", hours(-3), "acct_a")
    add("0.03", hours(-2))
    add(None, hours(-1), "acct_a")
    times = (hours(-4), hours(-3), hours(-2), hours(-1))
    assert [str(prices.at(model, "acct_a", each).of("http")) for each in times] == ["0.02", "0.001", "0.001", "0.03"]
    assert [str(prices.at(model, "acct_b", each).of("http")) for each in times] == ["0.02", "0.02", "0.03", "0.03"]
    assert str(prices.listed(model, hours(-3)).of("http")) == "0.02"


def test_a_batch_has_a_price_of_its_own_and_messages_have_the_lists(model: str, tables: Tables, prices: Prices) -> None:
    row = Row(model, LISTED, hours(-1), price("0.02", "0.0075", hours(-1)))
    store.dynamodb().put_item(TableName=tables.prices, Item=row.item())
    found = prices.at(model, "acct_a", START)
    assert [str(found.of(door)) for door in ("http", "message", "batch")] == ["0.02", "0.02", "0.0075"]


def test_of_accounts_and_models_whose_names_begin_alike_each_has_its_own(
    prices: Prices, model: str, add: Add, tables: Tables
) -> None:
    add("0.5", hours(-1), "acct")
    add("0.6", hours(-1), "acct.b")
    for account, usd in (("acct", "0.5"), ("acct.b", "0.6"), ("acct.", "0.01")):
        assert str(prices.at(model, account, START).of("http")) == usd
    longer = Prices(store.dynamodb, tables.prices, {f"{model}-large": SETTINGS})
    assert longer.at(f"{model}-large", "acct", START) == SETTINGS


def test_more_rows_than_a_page_of_dynamodb_holds_are_all_known(tables: Tables, model: str, add: Add) -> None:
    """Of a table whose pages hold two."""
    for number in range(5):
        add(f"0.{number + 1}", hours(-1), f"acct_{number}")
    client = boto3.client("dynamodb")
    client.meta.events.register("provide-client-params.dynamodb.Query", lambda params, **_: params | {"Limit": 2})
    prices = Prices(lambda: client, tables.prices, {model: SETTINGS})
    found = [str(prices.at(model, f"acct_{number}", START).of("http")) for number in range(6)]
    assert found == ["0.1", "0.2", "0.3", "0.4", "0.5", "0.01"]


# When it is known


class Counted:
    """A client of DynamoDB that counts its queries, and can be away."""

    def __init__(self) -> None:
        self.queries, self.away = 0, False

    def __call__(self) -> object:
        self.queries += 1
        if self.away:
            return _away()
        return store.dynamodb()


@cache
def _away() -> object:
    config = Config(retries={"total_max_attempts": 1}, connect_timeout=0.2)
    return boto3.client("dynamodb", endpoint_url="http://127.0.0.1:1", config=config)


def settle(prices: Prices) -> None:
    """Until what is read beside has been read."""
    with prices._reading:
        pass


def test_a_price_that_was_known_beforehand_begins_by_the_clock_without_a_look_at_the_table(
    tables: Tables, clock: Clock, model: str, add: Add
) -> None:
    add("0.02", START + timedelta(seconds=30))
    client = Counted()
    prices = Prices(client, tables.prices, {model: SETTINGS}, clock)  # type: ignore[arg-type]
    prices.warm()
    found = []
    for _ in range(59):
        clock.now += 1
        found.append(str(prices.at(model, "acct_a", now(clock)).of("http")))
    assert found == ["0.01"] * 29 + ["0.02"] * 30
    assert client.queries == 1


def test_after_a_minute_rows_are_read_anew_beside_the_request_and_not_ahead_of_it(
    tables: Tables, clock: Clock, model: str, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices = Prices(store.dynamodb, tables.prices, {model: SETTINGS}, clock)
    prices.warm()
    add("0.02", hours(-1))
    readers, read = [], Prices._read

    def noted(self: Prices, model: str) -> object:
        readers.append(threading.current_thread().name)
        return read(self, model)

    monkeypatch.setattr(Prices, "_read", noted)
    clock.now += 60
    prices.at(model, "acct_a", START)
    settle(prices)
    assert str(prices.at(model, "acct_a", START).of("http")) == "0.02"
    assert readers == ["prices"]


def test_a_table_out_of_reach_is_borne_for_ten_minutes_and_then_nothing_is_priced(
    tables: Tables, clock: Clock, model: str
) -> None:
    client = Counted()
    prices = Prices(client, tables.prices, {model: SETTINGS}, clock)  # type: ignore[arg-type]
    client.away = True
    prices.warm()  # only logged
    with pytest.raises(store.StoreUnavailableError):
        prices.at(model, "acct_a", START)
    client.away = False
    prices.at(model, "acct_a", START)
    client.away, client.queries = True, 0
    for _ in range(599):
        clock.now += 1
        prices.at(model, "acct_a", now(clock))
        settle(prices)
    assert client.queries <= 540 / 5 + 1, "it is not asked by every request"
    clock.now += 1
    with pytest.raises(store.StoreUnavailableError):
        prices.at(model, "acct_a", now(clock))
    client.away = False
    prices.at(model, "acct_a", now(clock))


def test_a_table_that_is_not_there_is_a_store_out_of_reach(ministack: MiniStack) -> None:
    with pytest.raises(store.StoreUnavailableError, match="on no-such-table"):
        Prices(store.dynamodb, "no-such-table", {"m": SETTINGS}).at("m", "acct_a", START)


def test_prices_that_change_in_the_middle_of_traffic_are_each_records_own_in_every_instance(
    tables: Tables, model: str
) -> None:
    """Instances that have read last at any time within what is allowed, clocks five minutes apart either way, and an
    operator who sets a price as late as the tool admits: every request has the price that the table says, whenever one
    looks at it."""
    chance, real = random.Random(5), Clock(NOON)
    operator = Prices(store.dynamodb, tables.prices, {}, lambda: real.now - 290)  # his clock is slow
    instances = [
        Prices(store.dynamodb, tables.prices, {model: SETTINGS}, lambda off=off: real.now + off)  # type: ignore[misc]
        for off in (-290.0, 0.0, 290.0)
    ]
    for instance in instances:  # none reads beside: each knows what it read, as long as it may
        instance._reading.acquire()
    seen: list[tuple[datetime, Price]] = []
    for step in range(400):
        real.now += chance.uniform(1, 60)
        if step in (11, 150, 151):
            since = operator.earliest()
            operator.set(Row(model, LISTED, since, price(f"0.0{step}", "0.01", since)))
        for instance in instances:
            if chance.random() < 0.7:
                when = datetime.fromtimestamp(instance._clock(), UTC)
                seen.append((when, instance.at(model, "acct_a", when)))
    [*rows] = (row for row in operator.list() if row.model == model)
    assert len(rows) in (2, 3)
    afterwards = Prices(store.dynamodb, tables.prices, {model: SETTINGS})
    assert all(afterwards.at(model, "acct_a", when) == found for when, found in seen)
    assert {str(found.input_per_mtok) for _, found in seen} >= {"0.01", "0.011", "0.0151"}


# Exactness


def test_the_cost_of_a_request_is_a_whole_number_of_picodollars() -> None:
    chance = random.Random(1)
    for _ in range(10_000):
        tokens, micro = chance.randint(0, 300_000), chance.randint(1, 10**15 - 1)
        usd = Decimal(micro).scaleb(-6)  # up to 9 digits and 6 decimals
        assert cost(tokens, usd) == Decimal(tokens * micro).scaleb(-12)


def test_the_sum_of_a_million_records_is_exact_to_the_last_digit() -> None:
    """All but fifty thousand of them in one figure."""
    chance, whole = random.Random(2), 10**20 + 1
    total = Decimal(whole).scaleb(-12)
    for _ in range(50_000):
        tokens, micro = chance.randint(1, 300_000), chance.randint(1, 10**9)
        total += cost(tokens, Decimal(micro).scaleb(-6))
        whole += tokens * micro
    assert total == Decimal(whole).scaleb(-12)


@pytest.mark.parametrize(("usd", "factor"), [("0.0000001", "1"), ("0.01", "0.00001"), ("0.13", "0.12345")])
def test_a_setting_by_which_a_token_would_cost_less_than_a_whole_picodollar_ends_the_start(
    usd: str, factor: str
) -> None:
    with pytest.raises(SettingError, match="at most 9 digits and 6 decimals"):
        settled(Settings(input_per_mtok=Decimal(usd), batch_factor=Decimal(factor)), 0)


# The operator's tool


def run(tables: Tables, *words: str, **settings: str) -> tools.Done:
    return tools.run(pricetool.main, *words, env={"PRICES_TABLE": tables.prices, **settings})


def test_the_tool_sets_lists_ends_and_withdraws(tables: Tables, model: str) -> None:
    words = ("--usd", "0.02", "--batch-factor", "0.5", "--at", "2099-01-01T01:00:00+01:00")
    listed = run(tables, "set", model, "--new", *words)
    assert listed.out == (
        f"{model}: 0.02 USD per million tokens, 0.01 of a batch (0.5 of it), from 2099-01-01T00:00:00Z on.\n"
    ), listed.err
    before = time.time()
    own = run(tables, "set", model, "--usd", "0.5", "--batch-usd", "0.1", "--account", "acct_a")
    soonest = datetime.fromisoformat(own.out.split(" from ")[1].split(" ")[0])
    assert before + LEAD_S <= soonest.timestamp() < time.time() + LEAD_S + 60
    assert own.out.startswith(f"{model} for acct_a: 0.5 USD per million tokens, 0.1 of a batch")
    at = ("--at", "2099-02-01T00:00:00Z")
    assert "as listed, from 2099" in run(tables, "end", model, "--account", "acct_a", *at).out
    rows = [line for line in run(tables, "list").out.splitlines() if line.startswith(f"{model}\t")]
    assert rows == [
        f"{model}\t*\t2099-01-01T00:00:00Z\t0.02\t0.01",
        f"{model}\tacct_a\t{soonest:%Y-%m-%dT%H:%M:%SZ}\t0.5\t0.1",
        f"{model}\tacct_a\t2099-02-01T00:00:00Z\tas listed\t",
    ]
    assert run(tables, "withdraw", model, "--account", "acct_a", *at).status == 0
    again = run(tables, "withdraw", model, "--account", "acct_a", *at)
    assert (again.status, "nothing begins at 2099-02-01" in again.err) == (1, True)


def test_what_has_begun_or_soon_begins_is_not_changed(tables: Tables, model: str, add: Add) -> None:
    add("0.02", hours(-9), "acct_a")
    for ahead in (-86400, 0, LEAD_S - 30):
        at = f"{datetime.fromtimestamp(int(time.time()) + ahead, UTC):%Y-%m-%dT%H:%M:%SZ}"
        one = ("--usd", "1", "--batch-usd", "1")
        for words in (("set", model, *one), ("end", model, "--account", "acct_a"), ("withdraw", model)):
            refused = run(tables, *words, "--at", at)
            assert (refused.status, refused.out) == (1, "")
            assert "prices are changed 30 minutes ahead or earlier" in refused.err


@pytest.mark.parametrize("usd", ["0", "-1", "0.0000001", "1e-3", "NaN", "1" * 10, "٣", ""])
def test_what_is_no_price_is_refused(tables: Tables, usd: str) -> None:
    refused = run(tables, "set", "m", "--batch-usd", "1", f"--usd={usd}")
    assert (refused.status, "expected a decimal number above 0" in refused.err) == (2, True)


def test_a_batch_factor_that_gives_no_exact_price_is_refused(tables: Tables) -> None:
    refused = run(tables, "set", "m", "--usd", "0.000001", "--batch-factor", "0.5")
    assert (refused.status, "--batch-usd names one" in refused.err) == (1, True)
    refused = run(tables, "set", "m", "--usd", "0.01", "--batch-factor", "5")
    assert (refused.status, "is a part of --usd, 1 at most" in refused.err) == (1, True)
    assert "cannot end" in run(tables, "end", "m").err


def test_a_batchs_price_is_of_the_call_and_never_of_the_operators_shell(tables: Tables) -> None:
    refused = run(tables, "set", "m", "--usd", "0.02")
    assert (refused.status, "one of the arguments --batch-usd --batch-factor is required" in refused.err) == (
        2,
        True,
    )


def test_a_model_that_has_no_price_yet_is_one_that_is_meant(tables: Tables, model: str, add: Add) -> None:
    add("0.02", hours(-9))
    one = ("--usd", "1", "--batch-usd", "0.5")
    refused = run(tables, "set", f"{model}-smal", *one)
    assert refused.status == 1
    assert f"{model}-smal has no price in the table yet (" in refused.err
    assert model in refused.err, "what there is, is listed"
    assert run(tables, "set", f"{model}-small", *one, "--new").status == 0
    assert run(tables, "set", f"{model}-small", *one).status == 0
    assert f"{model}-smal\t" not in run(tables, "list").out


def test_an_account_that_nobody_has_gets_no_price(tables: Tables, model: str, add: Add) -> None:
    add("0.02", hours(-9))
    none = run(tables, "end", model, "--account", "acct_priced")
    assert (none.status, f"acct_priced has no price of its own for {model}" in none.err) == (1, True)
    words = ("set", model, "--usd", "1", "--batch-usd", "0.5", "--account", "acct_priced")
    unknown = run(tables, *words, KEYS_TABLE=tables.keys)
    assert (unknown.status, "no account acct_priced" in unknown.err) == (1, True)
    tables.create_key("acct_priced", "inference")
    assert run(tables, *words, KEYS_TABLE=tables.keys).status == 0
