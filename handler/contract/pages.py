"""Usage and costs as they are answered. Amounts are written digit by digit: a float would round them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

import orjson

from handler.contract.usage import COSTS, Query


class Used(Protocol):
    """Tokens, requests and exact USD."""

    @property
    def tokens(self) -> int: ...
    @property
    def requests(self) -> int: ...
    @property
    def cost(self) -> Decimal: ...


@dataclass(frozen=True, order=True)
class Label:
    """Whose, and of what, a result is; None for what it was not grouped by."""

    project_id: str | None = None
    api_key_id: str | None = None
    model: str | None = None
    line_item: str | None = None


def page(query: Query, found: Mapping[int, Mapping[Label, Used]]) -> bytes:
    """The buckets from `query.start` on, each under its start and without a gap, and a way to the rest of them."""
    result: Callable[[Query, Label, Used], dict[str, Any]] = _cost if query.report is COSTS else _usage
    data = [
        {
            "object": "bucket",
            "start_time": start,
            "end_time": start + query.seconds,
            "results": [result(query, label, used[label]) for label in sorted(used)],
        }
        for start, used in found.items()
    ]
    following = query.next_page(query.start + len(data) * query.seconds)
    return orjson.dumps(
        {"object": "page", "data": data, "has_more": following is not None, "next_page": following},
    )


def own(days: int, models: Mapping[str, Used], daily: Mapping[str, Used], total: Used) -> bytes:
    """What was used in so many days, by model and by date; only those that had any."""
    return orjson.dumps(
        {
            "object": "usage",
            "days": days,
            "currency": "USD",
            "total_spend": _number(total.cost),
            "total_tokens": total.tokens,
            "total_requests": total.requests,
            "models": [
                {"model": model, "modality": "text"} | _spent(used) | {"units_consumed": None, "billing_unit": "tokens"}
                for model, used in sorted(models.items())
            ],
            "daily": [{"date": date} | _spent(used) for date, used in sorted(daily.items())],
        }
    )


def plain(amount: Decimal) -> str:
    """All the digits of an amount and no exponent; no zeros behind the last one that counts."""
    digits = f"{amount:f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _usage(_: Query, label: Label, used: Used) -> dict[str, Any]:
    return {
        "object": "organization.usage.embeddings.result",
        "input_tokens": used.tokens,
        "num_model_requests": used.requests,
        "project_id": label.project_id,
        "user_id": None,
        "api_key_id": label.api_key_id,
        "model": label.model,
    }


def _cost(query: Query, label: Label, used: Used) -> dict[str, Any]:
    itemized = label.line_item is not None
    return {
        "object": "organization.costs.result",
        "amount": {"value": _number(used.cost), "currency": "usd"},
        "line_item": label.line_item,
        "project_id": label.project_id,
        "user_id": None,
        "api_key_id": label.api_key_id,
        "api_source": "unlabeled" if "api_source" in query.group_by else None,
        "quantity": used.tokens if itemized else None,
        "quantity_unit": "tokens" if itemized else None,
    }


def _spent(used: Used) -> dict[str, Any]:
    return {"spend": _number(used.cost), "tokens": used.tokens, "requests": used.requests}


def _number(amount: Decimal) -> orjson.Fragment:
    return orjson.Fragment(plain(amount))
