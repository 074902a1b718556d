"""What usage and costs may be asked: CONTRACT's table row by row, in all spellings, and the token of the next page."""

from typing import Any
from urllib.parse import quote, urlencode

import pytest

from handler.contract.errors import ApiError
from handler.contract.usage import COSTS, EMBEDDINGS, LAST_SECOND, REPORTS, Query, Report, check, check_days

NOON, DAY = 1_730_462_400, 86_400  # 2024-11-01T12:00:00Z
MIDNIGHT = NOON - DAY // 2


def ask(report: Report = EMBEDDINGS, now: float = NOON, **parameters: Any) -> Query:
    return check(report, urlencode({"start_time": MIDNIGHT} | parameters, doseq=True), now)


def refusal(text: str, report: Report = EMBEDDINGS) -> tuple[str | None, str | None, str]:
    with pytest.raises(ApiError) as refused:
        check(report, text, NOON)
    assert refused.value.status == 400
    return refused.value.param, refused.value.problem.code, refused.value.message


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_defaults_are_seven_days_until_now(report: Report) -> None:
    query = ask(report)
    assert (query.width, query.limit, query.start, query.end) == ("1d", 7, MIDNIGHT, MIDNIGHT + DAY)
    assert (query.group_by, query.filters) == (frozenset(), {})


@pytest.mark.parametrize(
    ("report", "width", "seconds", "default", "most"),
    [
        (EMBEDDINGS, "1d", DAY, 7, 31),
        (EMBEDDINGS, "1h", 3600, 24, 168),
        (EMBEDDINGS, "1m", 60, 60, 1440),
        (COSTS, "1d", DAY, 7, 180),
    ],
)
def test_each_width_has_its_default_and_its_most_buckets(
    report: Report, width: str, seconds: int, default: int, most: int
) -> None:
    far: dict[str, Any] = {"bucket_width": width, "end_time": MIDNIGHT + 400 * DAY}
    buckets = ask(report, **far).buckets
    assert (len(buckets), buckets.step) == (default, seconds)
    assert len(ask(report, **far, limit=most).buckets) == most
    assert len(ask(report, **far, limit=1).buckets) == 1
    for limit in ("0", str(most + 1), "-1", "1.0", "1e1", "seven", "١", "9" * 13):
        param, code, message = refusal(f"start_time=0&bucket_width={width}&limit={quote(limit)}", report)
        assert (param, code) == ("limit", "invalid_value")
        assert message == f"Invalid value: '{limit}'. Supported values are: 1 to {most}."


@pytest.mark.parametrize("width", ["1m", "1h", "1d"])
@pytest.mark.parametrize("offset", [0, 1, 59, 60, 3599, 3600, 86_399])
def test_buckets_begin_at_utc_boundaries_and_hold_all_that_is_asked(width: str, offset: int) -> None:
    query = ask(bucket_width=width, start_time=MIDNIGHT + offset, end_time=MIDNIGHT + offset + 1)
    [start] = query.buckets
    assert start % query.seconds == 0
    assert start <= MIDNIGHT + offset < start + query.seconds
    assert query.end == start + query.seconds


@pytest.mark.parametrize(
    "spelt",
    [
        "group_by=project_id&group_by=model",
        "group_by[]=project_id&group_by[]=model",
        "group_by%5B%5D=project_id&group_by%5B%5D=model",
        "group_by=project_id,model",
        "group_by=project_id%2Cmodel",
        "group_by=model,%20project_id",
        "group_by[]=model&group_by=project_id,project_id",
    ],
)
def test_lists_come_in_three_spellings(spelt: str) -> None:
    assert check(EMBEDDINGS, f"start_time=0&{spelt}", NOON).group_by == {"project_id", "model"}


@pytest.mark.parametrize("spelt", ["project_ids=a&project_ids=b", "project_ids[]=a&project_ids[]=b", "project_ids=a,b"])
def test_filters_come_in_the_same_ones(spelt: str) -> None:
    query = check(EMBEDDINGS, f"start_time=0&{spelt}", NOON)
    assert query.filters == {"project_ids": {"a", "b"}}
    assert query.admits(project_ids="a", models="any")
    assert not query.admits(project_ids="c", models="any")


@pytest.mark.parametrize(
    "spelt",
    [
        "line_items[]=bge-m3%2C+input_tokens&line_items[]=bge-m3%2C%20batch+input_tokens",
        "line_items=bge-m3,+input_tokens&line_items=bge-m3,+batch+input_tokens",
        "line_items=bge-m3,+input_tokens,bge-m3,+batch+input_tokens",
    ],
)
def test_a_line_item_has_a_comma_of_its_own(spelt: str) -> None:
    lines = check(COSTS, f"start_time=0&{spelt}", NOON).filters["line_items"]
    assert lines == {"bge-m3, input_tokens", "bge-m3, batch input_tokens"}


@pytest.mark.parametrize("name", ["end_time", "bucket_width", "limit", "group_by", "group_by[]", "models[]", "page"])
def test_an_empty_value_is_as_good_as_none(name: str) -> None:
    """As the Node SDK sends null."""
    assert check(EMBEDDINGS, f"start_time={MIDNIGHT}&{name}=", NOON) == ask()


def test_of_several_values_the_last_holds() -> None:
    assert check(EMBEDDINGS, f"start_time=7&limit=1&limit=2&start_time={MIDNIGHT}", NOON) == ask(limit=2)


@pytest.mark.parametrize("text", ["", "start_time=", "end_time=5", "start_time[]="])
def test_the_start_is_required(text: str) -> None:
    found = refusal(text)
    assert found == ("start_time", "missing_required_parameter", "Missing required parameter: 'start_time'.")


@pytest.mark.parametrize(
    ("report", "text", "param", "supported"),
    [
        (EMBEDDINGS, "start_time=yesterday", "start_time", f"0 to {LAST_SECOND}"),
        (EMBEDDINGS, "start_time=-1", "start_time", f"0 to {LAST_SECOND}"),
        (EMBEDDINGS, f"start_time={LAST_SECOND + 1}", "start_time", f"0 to {LAST_SECOND}"),
        (EMBEDDINGS, "start_time=1.5", "start_time", f"0 to {LAST_SECOND}"),
        (EMBEDDINGS, "start_time=9&end_time=9", "end_time", f"10 to {LAST_SECOND}, after start_time"),
        (EMBEDDINGS, "start_time=9&end_time=8", "end_time", f"10 to {LAST_SECOND}, after start_time"),
        (EMBEDDINGS, "start_time=9&end_time=now", "end_time", f"0 to {LAST_SECOND}"),
        (EMBEDDINGS, "start_time=0&bucket_width=1w", "bucket_width", "'1d', '1h', '1m'"),
        (COSTS, "start_time=0&bucket_width=1h", "bucket_width", "'1d'"),
        (COSTS, "start_time=0&limit=181", "limit", "1 to 180"),
        (EMBEDDINGS, "start_time=0&group_by=line_item", "group_by", "'project_id', 'user_id', 'api_key_id', 'model'"),
        (EMBEDDINGS, "start_time=0&group_by=model,Model", "group_by", "'project_id', 'user_id', 'api_key_id', 'model'"),
        (
            COSTS,
            "start_time=0&group_by[]=model",
            "group_by",
            "'project_id', 'user_id', 'api_key_id', 'line_item', 'api_source'",
        ),
    ],
)
def test_what_is_out_of_range_is_refused_with_what_is_in_it(
    report: Report, text: str, param: str, supported: str
) -> None:
    found, code, message = refusal(text, report)
    assert (found, code) == (param, "invalid_value")
    assert message.endswith(f"Supported values are: {supported}.")


@pytest.mark.parametrize(
    ("report", "name"),
    [
        *((report, name) for report in REPORTS.values() for name in ("user_ids", "user_ids[]", "batch", "Limit")),
        (EMBEDDINGS, "line_items"),
        (COSTS, "models"),
    ],
)
def test_a_parameter_that_is_not_taken_is_refused_and_not_passed_over(report: Report, name: str) -> None:
    param, code, message = refusal(f"start_time=0&{name}=user_1", report)
    assert (param, code) == (name.removesuffix("[]"), "invalid_value")
    assert "'start_time', 'end_time', 'bucket_width', 'limit', 'group_by', 'project_ids', 'api_key_ids'" in message


@pytest.mark.parametrize("name", ["user_id", "api_source"])
def test_it_may_be_grouped_by_what_all_have_in_common(name: str) -> None:
    assert ask(COSTS, group_by=name).group_by == {name}


def test_a_start_that_is_still_to_come_has_no_buckets() -> None:
    query = ask(start_time=NOON + 5 * DAY)
    assert list(query.buckets) == []
    assert query.next_page(query.start) is None


# The next page


LONG: dict[str, Any] = {"end_time": MIDNIGHT + 10 * DAY, "limit": 3, "group_by": ["model"], "models": ["bge-m3"]}


def test_a_page_goes_on_where_the_one_before_ended() -> None:
    first = ask(**LONG)
    token = first.next_page(first.buckets.stop)
    second = ask(**LONG, page=token)
    assert list(second.buckets) == [MIDNIGHT + day * DAY for day in (3, 4, 5)]
    assert second.end == first.end
    assert list(ask(**LONG | {"limit": 31}, page=token).buckets) == [MIDNIGHT + day * DAY for day in range(3, 10)]
    assert second.next_page(MIDNIGHT + 10 * DAY) is None


def test_now_is_that_of_the_first_page() -> None:
    query = ask(bucket_width="1h", limit=2)
    token = query.next_page(query.buckets.stop)
    assert ask(bucket_width="1h", limit=2, page=token, now=NOON + DAY).end == NOON


def test_lists_may_be_spelt_anew_on_the_next_page() -> None:
    first = check(EMBEDDINGS, f"start_time=0&end_time={DAY * 9}&group_by=model,user_id&group_by=model", NOON)
    token = first.next_page(first.buckets.stop)
    again = f"start_time=0&end_time={DAY * 9}&group_by[]=user_id&group_by[]=model&page={token}"
    assert check(EMBEDDINGS, again, NOON).start == 7 * DAY


@pytest.mark.parametrize(
    "changed",
    [
        {"start_time": MIDNIGHT + DAY},
        {"end_time": MIDNIGHT + 11 * DAY},
        {"bucket_width": "1h"},
        {"group_by": ["model", "user_id"]},
        {"models": ["bge-m3", "other"]},
        {"api_key_ids": ["key_1"]},
    ],
    ids=str,
)
def test_a_token_is_of_one_query_alone(changed: dict[str, Any]) -> None:
    first = ask(**LONG)
    token = str(first.next_page(first.buckets.stop))
    with pytest.raises(ApiError) as refused:
        ask(**LONG | changed, page=token)
    assert (refused.value.param, refused.value.problem.code) == ("page", "invalid_value")


def test_a_token_of_usage_is_none_of_costs() -> None:
    bare: dict[str, Any] = {"end_time": MIDNIGHT + 10 * DAY}
    token = str(ask(**bare).next_page(MIDNIGHT + DAY))
    assert ask(**bare, page=token).start == MIDNIGHT + DAY
    assert refusal(urlencode({"start_time": MIDNIGHT} | bare | {"page": token}), COSTS)[0] == "page"


def test_a_token_that_was_not_given_out_is_refused() -> None:
    token = str(ask(**LONG).next_page(MIDNIGHT + DAY))
    changed = [token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :] for at in range(len(token))]
    for page in (*changed, token[:-1], f"{token}A", "page_", "2", "x" * 5000, "page_" + "é" * 32, f" {token}"):
        text = urlencode({"start_time": MIDNIGHT} | LONG | {"page": page}, doseq=True)
        param, code, message = refusal(text)
        assert (param, code) == ("page", "invalid_value")
        assert len(message) < 250


# A key's own


@pytest.mark.parametrize(("text", "days"), [("", 30), ("days=", 30), ("days=1", 1), ("days=365", 365)])
def test_a_keys_own_usage_is_of_thirty_days_or_as_many_as_asked(text: str, days: int) -> None:
    assert check_days(text) == days


@pytest.mark.parametrize("days", ["0", "366", "-1", "1.5", "month", "00000000000001"])
def test_days_are_1_to_365(days: str) -> None:
    with pytest.raises(ApiError) as refused:
        check_days(f"days={days}")
    assert (refused.value.param, refused.value.problem.code) == ("days", "invalid_value")
    assert refused.value.message == f"Invalid value: '{days}'. Supported values are: 1 to 365."
