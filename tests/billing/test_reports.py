"""Usage and costs against the records they are made of: to the token, and to the last decimal."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any
from urllib.parse import urlencode

import pytest

from handler import store
from handler.billing import reports
from handler.billing.buckets import WIDTHS, Bucket, Group, Sums, line_item
from handler.billing.keys import Caller
from handler.billing.ledger import Record
from handler.billing.reports import Reports
from handler.billing.rollups import Rollups
from handler.contract.errors import ApiError
from handler.contract.usage import COSTS, EMBEDDINGS, Report, check
from tests.billing.conftest import Clock
from tests.stack import spending
from tests.stack.ministack import Tables
from tests.stack.spending import EDGES, Spent

ACCOUNTS = ("acct_rep_a", "acct_rep_b", "acct_rep_c")
FIRST, LAST = (int(edge.timestamp()) for edge in (EDGES[0], EDGES[-1]))
DAY = WIDTHS["1d"]
Page = dict[str, Any]


@pytest.fixture(scope="module")
def records(tables: Tables) -> list[Record]:
    """500 records of three accounts in four days, across the end of a month."""
    made = spending.made_up(1, ACCOUNTS, 500)
    spending.write(tables, made)
    return made


@pytest.fixture
def told(tables: Tables) -> Reports:
    return Reports(Rollups(store.dynamodb, tables.rollups))


def ask(told: Reports, report: Report, account: str, now: float = LAST, **parameters: Any) -> Page:
    query = check(report, urlencode(parameters, doseq=True), now)
    page: Page = json.loads(told.page(query, account), parse_float=Decimal)
    return page


def whole(told: Reports, report: Report, account: str, **parameters: Any) -> list[Page]:
    """The buckets of all pages."""
    page = ask(told, report, account, **parameters)
    buckets: list[Page] = page["data"]
    while page["has_more"]:
        page = ask(told, report, account, **parameters, page=page["next_page"])
        buckets += page["data"]
    assert page["next_page"] is None
    return buckets


LABELS: dict[str, Callable[[Record], str]] = {
    "project_id": lambda record: record.account,
    "api_key_id": lambda record: record.key_id,
    "model": lambda record: record.model,
    "line_item": lambda record: line_item(record.model, record.work.door),
}
FILTERS = {"project_ids": "project_id", "api_key_ids": "api_key_id", "models": "model", "line_items": "line_item"}


def expected(records: list[Record], parameters: dict[str, Any]) -> dict[int, dict[tuple[str | None, ...], Spent]]:
    """What the records themselves say, by bucket and by what they are grouped by."""
    for name in FILTERS.keys() & parameters.keys():
        records = [record for record in records if LABELS[FILTERS[name]](record) in parameters[name]]
    seconds, by = WIDTHS[parameters.get("bucket_width", "1d")], parameters["group_by"]
    start, end = parameters["start_time"] // seconds * seconds, -(-parameters["end_time"] // seconds) * seconds
    buckets: dict[int, dict[tuple[str | None, ...], Spent]] = {each: {} for each in range(start, end, seconds)}
    sums = spending.spent(
        records,
        lambda record: (
            spending.starts(record, seconds),
            tuple(label(record) if name in by else None for name, label in LABELS.items()),
        ),
    )
    for (begin, label), spent in sums.items():
        if begin in buckets and any(spent):
            buckets[begin][label] = spent
    return buckets


def random_parameters(rng: random.Random, report: Report, records: list[Record]) -> dict[str, Any]:
    width = rng.choice([*report.widths])
    seconds, most = WIDTHS[width], {"1m": 3000, "1h": 120, "1d": 6}[width]
    middle = rng.choice([*(int(edge.timestamp()) for edge in EDGES), FIRST + rng.randint(0, LAST - FIRST)])
    start = middle - rng.randint(0, most // 2 * seconds)
    found: dict[str, Any] = {
        "bucket_width": width,
        "start_time": start,
        "end_time": start + rng.randint(1, most * seconds),
        "limit": rng.randint(1, most if most < report.widths[width].most else report.widths[width].most),
        "group_by": rng.sample(report.group_by, rng.randint(0, len(report.group_by))),
    }
    for name in report.filters:
        if rng.random() < 0.3:
            some = rng.sample(records, rng.randint(1, 3))
            found[name] = [*{LABELS[FILTERS[name]](record) for record in some}, "nobody"]
    return found


@pytest.mark.parametrize("seed", range(40))
def test_pages_together_say_what_the_records_say(told: Reports, records: list[Record], seed: int) -> None:
    rng = random.Random(seed)
    report = rng.choice((EMBEDDINGS, COSTS))
    account = rng.choice((*ACCOUNTS, "*"))
    parameters = random_parameters(rng, report, records)
    seen = [each for each in records if account in ("*", each.account)]
    if report is EMBEDDINGS and parameters["bucket_width"] == "1m":
        parameters["limit"] = max(parameters["limit"], 200)  # a minute a page would take its time

    parameters.setdefault("project_ids", [*ACCOUNTS])  # the table has other tests' accounts too

    buckets = whole(told, report, account, **parameters)

    wanted = expected(seen, parameters)
    assert [bucket["start_time"] for bucket in buckets] == [*wanted]
    for bucket in buckets:
        assert bucket["end_time"] - bucket["start_time"] == WIDTHS[parameters["bucket_width"]]
        found = {tuple(each.get(name) for name in LABELS): each for each in bucket["results"]}
        assert len(found) == len(bucket["results"])
        assert found.keys() == wanted[bucket["start_time"]].keys()
        for label, (tokens, requests, usd) in wanted[bucket["start_time"]].items():
            if report is EMBEDDINGS:
                assert (found[label]["input_tokens"], found[label]["num_model_requests"]) == (tokens, requests)
            else:
                assert Fraction(found[label]["amount"]["value"]) == usd
                assert found[label]["quantity"] == (tokens if "line_item" in parameters["group_by"] else None)


def test_an_account_sees_nothing_of_anothers(told: Reports, records: list[Record]) -> None:
    asked = {"start_time": FIRST - DAY, "end_time": LAST + DAY, "group_by": "project_id"}
    for account in ACCOUNTS:
        buckets = whole(told, EMBEDDINGS, account, **asked)
        assert {each["project_id"] for bucket in buckets for each in bucket["results"]} == {account}
        others = whole(told, EMBEDDINGS, account, **asked, project_ids=[*{*ACCOUNTS} - {account}])
        assert [bucket["results"] for bucket in others] == [[]] * len(buckets)


def test_a_bucket_that_an_edge_cuts_is_told_whole(told: Reports, records: list[Record]) -> None:
    cut = ask(told, EMBEDDINGS, ACCOUNTS[0], start_time=FIRST + DAY // 2, end_time=FIRST + DAY // 2 + 1)
    uncut = ask(told, EMBEDDINGS, ACCOUNTS[0], start_time=FIRST, end_time=FIRST + DAY)
    assert cut == uncut
    [bucket] = cut["data"]
    assert (bucket["start_time"], bucket["end_time"]) == (FIRST, FIRST + DAY)


def test_what_is_asked_until_now_ends_at_the_same_moment_on_all_its_pages(told: Reports, records: list[Record]) -> None:
    asked: dict[str, Any] = {"start_time": FIRST, "bucket_width": "1h", "limit": 2}
    page = ask(told, EMBEDDINGS, ACCOUNTS[0], now=FIRST + 4 * 3600 - 10, **asked)
    page = ask(told, EMBEDDINGS, ACCOUNTS[0], now=FIRST + 10 * 3600, **asked, page=page["next_page"])
    assert [each["start_time"] for each in page["data"]] == [FIRST + 2 * 3600, FIRST + 3 * 3600]
    assert page["has_more"] is False


def test_a_page_with_many_results_ends_early_and_the_next_goes_on(
    told: Reports, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {
        "start_time": FIRST - DAY,
        "end_time": LAST,
        "bucket_width": "1h",
        "group_by": "api_key_id",
        "limit": 168,
    }
    asked |= {"project_ids": [*ACCOUNTS]}
    unbounded = ask(told, EMBEDDINGS, "*", **asked)
    assert not unbounded["has_more"]
    most = max(len(bucket["results"]) for bucket in unbounded["data"])
    monkeypatch.setattr(reports, "MOST_RESULTS", most)
    page = ask(told, EMBEDDINGS, "*", **asked)
    assert page["has_more"]
    assert len(page["data"]) < len(unbounded["data"])
    assert whole(told, EMBEDDINGS, "*", **asked) == unbounded["data"]


def test_a_single_bucket_with_too_many_results_is_refused_with_what_helps(
    told: Reports, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "MOST_RESULTS", 1)
    asked: dict[str, Any] = {"start_time": FIRST, "end_time": LAST, "group_by": "api_key_id"}
    with pytest.raises(ApiError) as refused:
        ask(told, COSTS, ACCOUNTS[0], **asked)
    assert (refused.value.status, refused.value.problem.code) == (400, "response_too_large")
    assert refused.value.param == "group_by"
    ask(told, COSTS, ACCOUNTS[0], **asked | {"group_by": "project_id"})


def test_the_largest_page_fits_a_function_url() -> None:
    """MOST_RESULTS of the longest names, in as many buckets as there can be."""
    longest, group = "a" * 64, Group("key_0123456789abcdef", "m" * 64, f"{'m' * 64}, batch input_tokens")
    groups = {
        replace(group, key_id=f"key_{each:016x}"): Sums(10**14, 10**14, Decimal(10**13) / 7) for each in range(5000)
    }

    class Full(Rollups):
        def read(self, account: str, width: str, start: int, end: int) -> Any:  # noqa: ARG002
            return iter(Bucket(each, 1, groups) for each in range(start, min(end, start + 2 * DAY), DAY))

    told = Reports(Full(store.dynamodb, ""))
    for report in (EMBEDDINGS, COSTS):
        by = ",".join(report.group_by)
        query = check(
            report, urlencode({"start_time": FIRST, "end_time": FIRST + 31 * DAY, "limit": 31, "group_by": by}), LAST
        )
        page = told.page(query, longest)
        assert page.count(b'"api_key_id"') == reports.MOST_RESULTS
        assert len(json.dumps(page.decode())) < 6_291_456 - 8192


def test_a_report_reads_no_later_than_now_and_one_query_an_account(tables: Tables) -> None:
    """Whatever is asked, what is read is bounded: the rollups of one width, of the buckets of one page."""
    asked: list[tuple[str, str, int, int]] = []

    class Watched(Rollups):
        def read(self, account: str, width: str, start: int, end: int) -> Any:
            asked.append((account, width, start, end))
            return super().read(account, width, start, end)

    told = Reports(Watched(store.dynamodb, tables.rollups), Clock(FIRST + 90.0))
    ask(told, EMBEDDINGS, ACCOUNTS[0], start_time=0, bucket_width="1m")
    ask(told, EMBEDDINGS, ACCOUNTS[0], start_time=FIRST, end_time=FIRST + 5 * DAY, bucket_width="1h")
    assert asked == [(ACCOUNTS[0], "1m", 0, 3600), (ACCOUNTS[0], "1h", FIRST, FIRST + 90 + 3600)]


# A key's own


def own(told: Reports, caller: Caller, days: int) -> Page:
    found: Page = json.loads(told.own(caller, days), parse_float=Decimal)
    return found


@pytest.mark.parametrize("role", ["inference", "admin"])
@pytest.mark.parametrize("days", [1, 2, 3, 30, 365])
def test_own_usage_says_what_the_records_of_a_key_or_an_account_say(
    tables: Tables, records: list[Record], role: str, days: int
) -> None:
    account, today = ACCOUNTS[0], LAST // DAY * DAY
    caller = Caller(account, f"key_{account}_1", role)
    found = own(Reports(Rollups(store.dynamodb, tables.rollups), Clock(LAST + 60.0)), caller, days)

    first, mine = today - (days - 1) * DAY, caller.key_id if role == "inference" else None
    counted = [
        each
        for each in records
        if each.account == account and mine in (None, each.key_id) and first <= spending.starts(each, DAY) <= today
    ]
    by_model = spending.spent(counted, lambda record: record.model)
    by_day = spending.spent(counted, lambda record: f"{record.work.time:%Y-%m-%d}")
    [(_, total)] = spending.spent(counted, lambda _: None).items()
    assert {each["model"]: spent_of(each) for each in found["models"]} == by_model
    assert {each["date"]: spent_of(each) for each in found["daily"]} == by_day
    assert [each["date"] for each in found["daily"]] == sorted(by_day)
    assert (found["total_tokens"], found["total_requests"], Fraction(found["total_spend"])) == total
    assert (found["object"], found["days"], found["currency"]) == ("usage", days, "USD")
    for each in found["models"]:
        assert (each["modality"], each["units_consumed"], each["billing_unit"]) == ("text", None, "tokens")


def spent_of(row: Page) -> Spent:
    return row["tokens"], row["requests"], Fraction(row["spend"])


def test_a_key_that_has_used_nothing_gets_zeros(told: Reports) -> None:
    found = own(told, Caller("acct_rep_none", "key_none", "inference"), 30)
    assert found == {
        "object": "usage",
        "days": 30,
        "currency": "USD",
        "total_spend": 0,
        "total_tokens": 0,
        "total_requests": 0,
        "models": [],
        "daily": [],
    }
