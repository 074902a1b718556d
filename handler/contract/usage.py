"""What may be asked of usage and costs: the parameters of a query, and the pages of its answer."""

import base64
import hashlib
import json
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from handler.contract import errors
from handler.contract.fields import quoted

MAX_DAYS = 365  # of GET /v1/usage
DEFAULT_DAYS = 30
LAST_SECOND = 253_402_300_799  # of the year 9999

_INTEGER = re.compile(r"\d{1,12}", re.ASCII)
_SEPARATOR, _OF_LINE_ITEMS = re.compile(","), re.compile(",(?! )")  # `bge-m3, input_tokens` is one
_TOKEN, _NEXT_PAGE = re.compile(r"page_([\w-]{32})", re.ASCII), struct.Struct(">QQ8s")


@dataclass(frozen=True)
class Width:
    """A width of buckets, in seconds, and how many of them a page has: by default, and at most."""

    seconds: int
    default: int
    most: int


@dataclass(frozen=True)
class Report:
    """What one of the two reports can be asked. The first of `widths` is the default."""

    name: str
    widths: Mapping[str, Width]
    group_by: tuple[str, ...]
    filters: tuple[str, ...]

    @property
    def parameters(self) -> tuple[str, ...]:
        return "start_time", "end_time", "bucket_width", "limit", "group_by", *self.filters, "page"


EMBEDDINGS = Report(
    "embeddings",
    {"1d": Width(86400, 7, 31), "1h": Width(3600, 24, 168), "1m": Width(60, 60, 1440)},
    ("project_id", "user_id", "api_key_id", "model"),
    ("project_ids", "api_key_ids", "models"),
)
COSTS = Report(
    "costs",
    {"1d": Width(86400, 7, 180)},
    ("project_id", "user_id", "api_key_id", "line_item", "api_source"),
    ("project_ids", "api_key_ids", "line_items"),
)
REPORTS = {report.name: report for report in (EMBEDDINGS, COSTS)}


@dataclass(frozen=True)
class Query:
    """A checked query for one page. `start` and `end`: the UTC boundaries of what is left to be told, in Unix seconds;
    `limit`: at most so many buckets of it now. `filters` has those that were given; `asked` is what all pages share."""

    report: Report
    width: str
    start: int
    end: int
    limit: int
    group_by: frozenset[str]
    filters: Mapping[str, frozenset[str]]
    asked: bytes

    @property
    def seconds(self) -> int:
        return self.report.widths[self.width].seconds

    @property
    def buckets(self) -> range:
        """Where the buckets of this page begin, if none of them has too much to tell."""
        return range(self.start, min(self.end, self.start + self.limit * self.seconds), self.seconds)

    def admits(self, **values: str) -> bool:
        """Whether each filter that was given lets its value through."""
        return all(value in self.filters[name] for name, value in values.items() if name in self.filters)

    def next_page(self, start: int) -> str | None:
        """What to ask for the buckets from `start` on; None if there are no more. It holds where the whole answer ends,
        so that one that ends now does so on all of its pages, and a hash of what was asked."""
        if start >= self.end:
            return None
        packed = _NEXT_PAGE.pack(start, self.end, _digest(self.asked, start, self.end))
        return f"page_{base64.urlsafe_b64encode(packed).decode()}"


def check(report: Report, text: str, now: float) -> Query:
    """The query in the text behind an address's `?`. Raises `missing_required_parameter` or `invalid_value`.

    Lists come as `name[]=a&name[]=b`, `name=a&name=b` or `name=a,b`; an empty value is as good as none, of several the
    last holds. Unknown names are refused: of a filter that is spelt wrongly the answer would be of something else.
    """
    values = _values(text, report.parameters)
    if "start_time" not in values:
        raise errors.MISSING_PARAMETER.error(param="start_time", field="start_time")
    first, last = _integer(values, "start_time", 0, LAST_SECOND), _integer(values, "end_time", 0, LAST_SECOND)
    assert first is not None  # noqa: S101  (it is there)
    if last is not None and last <= first:
        raise _invalid("end_time", str(last), f"{first + 1} to {LAST_SECOND}, after start_time")
    width = _choice(values, "bucket_width", tuple(report.widths))
    seconds, default, most = (each := report.widths[width]).seconds, each.default, each.most
    limit = _integer(values, "limit", 1, most) or default
    group_by = _list(values, "group_by")
    for name in sorted(group_by - {*report.group_by}):
        raise _invalid("group_by", name, quoted(report.group_by))
    filters = {name: chosen for name in report.filters if (chosen := _list(values, name))}
    shared = [report.name, width, first, last, sorted(group_by), {name: sorted(filters[name]) for name in filters}]
    asked = json.dumps(shared).encode()
    start, end = first // seconds * seconds, -(-int(now if last is None else last) // seconds) * seconds
    if "page" in values:
        start, end = _opened(values["page"][-1], asked)
    return Query(report, width, start, end, limit, group_by, filters, asked)


def check_days(text: str) -> int:
    """How many days `GET /v1/usage` is asked for. Raises `invalid_value`."""
    return _integer(_values(text, ("days",)), "days", 1, MAX_DAYS) or DEFAULT_DAYS


def _values(text: str, known: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for spelt, value in parse_qsl(text, keep_blank_values=True):
        name = spelt.removesuffix("[]")
        if name not in known:
            raise _invalid(name, name, quoted(known))
        if value:  # the Node SDK's way to send null
            found.setdefault(name, []).append(value)
    return found


def _integer(values: Mapping[str, list[str]], name: str, least: int, most: int) -> int | None:
    if name not in values:
        return None
    text = values[name][-1]
    if not _INTEGER.fullmatch(text) or not least <= int(text) <= most:
        raise _invalid(name, text, f"{least} to {most}")
    return int(text)


def _choice(values: Mapping[str, list[str]], name: str, choices: tuple[str, ...]) -> str:
    value = values.get(name, choices)[-1 if name in values else 0]
    if value not in choices:
        raise _invalid(name, value, quoted(choices))
    return value


def _list(values: Mapping[str, list[str]], name: str) -> frozenset[str]:
    separator = _OF_LINE_ITEMS if name == "line_items" else _SEPARATOR
    items: Iterable[str] = (item.strip() for value in values.get(name, ()) for item in separator.split(value))
    return frozenset(filter(None, items))


def _opened(token: str, asked: bytes) -> tuple[int, int]:
    """Start and end in a `next_page`, which must be one of the same query's."""
    if found := _TOKEN.fullmatch(token):
        start, end, digest = _NEXT_PAGE.unpack(base64.urlsafe_b64decode(found[1]))
        if digest == _digest(asked, start, end):
            return start, end
    raise _invalid("page", token, "the `next_page` of an answer to the same query")


def _digest(asked: bytes, start: int, end: int) -> bytes:
    return hashlib.sha256(b"%b %d %d" % (asked, start, end)).digest()[:8]


def _invalid(name: str, value: str, values: str) -> errors.ApiError:
    return errors.INVALID_VALUE.error(param=name, value=value, values=values)
