"""What a token costs, by model, account, door and time; a record keeps the price it was written with.

`python -m handler.billing.prices` is the operator's tool (pricetool.py).
"""

import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from handler import store
from handler.settings import SettingError, Settings

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

log = logging.getLogger(__name__)

LISTED = "*"  # the account of prices that hold for all accounts without one of their own
DECIMALS = 6  # of a price for a million tokens: so one token's cost is a whole number of 1e-12 USD, and sums stay exact
AMOUNT = re.compile(rf"\d{{1,9}}(\.\d{{1,{DECIMALS}}})?", re.ASCII)

_FRESH_S, _STALE_S, _RETRY_S = 60, 600, 5
# A price is written down this long before it begins. What a process knows is _STALE_S old at most, and no two clocks
# that AWS admits are over 600 s apart: so all processes know of a price by the time it begins, by whatever clock.
LEAD_S = 1800


@dataclass(frozen=True)
class Price:
    """USD per million input tokens since a time, in UTC; a batch's tokens have a price of their own."""

    effective_at: datetime
    input_per_mtok: Decimal
    batch_input_per_mtok: Decimal

    def of(self, door: str) -> Decimal:
        return self.batch_input_per_mtok if door == "batch" else self.input_per_mtok


@dataclass(frozen=True)
class Row:
    """A row of the Prices table. `price`: None where an account of its own price goes back to the list's."""

    model: str
    account: str
    effective_at: datetime
    price: Price | None

    def key(self) -> dict[str, Any]:
        """Partition model, so that one query finds all of a model's; sort key `account#time`."""
        return {"model": {"S": self.model}, "sk": {"S": f"{self.account}#{rfc3339(self.effective_at)}"}}

    def item(self) -> dict[str, Any]:
        if self.price is None:
            return self.key()
        return self.key() | {
            "input_per_mtok": {"N": f"{self.price.input_per_mtok:f}"},
            "batch_input_per_mtok": {"N": f"{self.price.batch_input_per_mtok:f}"},
        }


_Timelines = Mapping[str, list[Row]]  # account → rows, ascending in time
_NEVER: tuple[float, _Timelines] = (float("-inf"), {})


class Prices:
    """The Prices table. A process reads all of a model's rows at once, those of the future too, and keeps them.

    After 60 s they are read again beside the work at hand. What is over 10 minutes old prices nothing: where the table
    stays out of reach that long, no price is better than one that may be wrong.
    """

    def __init__(
        self,
        client: Callable[[], "DynamoDBClient"],
        table: str,
        settled: Mapping[str, Price],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`settled`: what each model served costs where the table, or all of its name, says nothing."""
        self._client, self._table, self._settled, self._clock = client, table, settled, clock
        self._known: dict[str, tuple[float, _Timelines]] = {}
        self._tried = float("-inf")
        self._reading = threading.Lock()

    def at(self, model: str, account: str, when: datetime) -> Price:
        """The newest price that had begun by then: the account's own, else the list's, else the settings'. Raises
        StoreUnavailableError where that cannot be known."""
        rows = self._rows(model) if self._table else {}
        for whose in (account, LISTED):
            newest = next((row for row in reversed(rows.get(whose, [])) if row.effective_at <= when), None)
            if newest and newest.price:
                return newest.price
        return self._settled[model]

    def listed(self, model: str, when: datetime) -> Price:
        """As `at`, for an account without a price of its own."""
        return self.at(model, LISTED, when)

    def warm(self) -> None:
        """Read the rows before the first request has to; a table out of reach is only logged."""
        for model in self._settled if self._table else ():
            self._refresh(model)

    def _rows(self, model: str) -> _Timelines:
        read, rows = self._known.get(model, _NEVER)
        age = self._clock() - read
        if age >= _STALE_S:
            return self._read(model)
        if age >= _FRESH_S and self._clock() - self._tried >= _RETRY_S and self._reading.acquire(blocking=False):
            threading.Thread(target=self._refresh_beside, args=(model,), name="prices", daemon=True).start()
        return rows

    def _refresh_beside(self, model: str) -> None:
        try:
            self._refresh(model)
        finally:
            self._reading.release()

    def _refresh(self, model: str) -> None:
        self._tried = self._clock()
        try:
            self._read(model)
        except store.StoreUnavailableError as error:
            log.warning("Prices table out of reach: %s", error)

    def _read(self, model: str) -> _Timelines:
        asked, rows = self._clock(), dict[str, list[Row]]()
        words = {"KeyConditionExpression": "model = :model", "ExpressionAttributeValues": {":model": {"S": model}}}
        for row in self._page("query", **words):
            rows.setdefault(row.account, []).append(row)
        self._known[model] = asked, rows
        return rows

    def _page(self, operation: Any, **words: Any) -> Iterator[Row]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            for page in (
                self._client().get_paginator(operation).paginate(TableName=self._table, ConsistentRead=True, **words)
            ):
                yield from map(_row, page["Items"])
        except (BotoCoreError, ClientError) as error:
            raise store.StoreUnavailableError(store.reason(error, self._table)) from error

    def list(self) -> Iterator[Row]:
        """Every row, of past and future; each account's of a model together, ascending in time."""
        return iter(sorted(self._page("scan"), key=lambda row: (row.model, row.account, row.effective_at)))

    def set(self, row: Row) -> None:
        """Write a price down, over another of the same beginning. ValueError where it would begin too soon: functions
        may not all know of it by then."""
        self._must_be_ahead(row)
        self._client().put_item(TableName=self._table, Item=row.item())

    def withdraw(self, row: Row) -> bool:
        """Take back a price that is still to come; False if there is none. ValueError where it begins too soon."""
        self._must_be_ahead(row)
        old = self._client().delete_item(TableName=self._table, Key=row.key(), ReturnValues="ALL_OLD")
        return "Attributes" in old

    def earliest(self) -> datetime:
        """When a price that is set now may begin: a full minute."""
        return datetime.fromtimestamp(-(-(self._clock() + LEAD_S) // 60) * 60, UTC)

    def _must_be_ahead(self, row: Row) -> None:
        if row.effective_at.timestamp() < self._clock() + LEAD_S:
            raise ValueError(
                f"{rfc3339(row.effective_at)}: prices are changed {LEAD_S // 60} minutes ahead or earlier, so that all "
                f"functions change at once and no record's price is ever rewritten; from {rfc3339(self.earliest())} on"
            )


def settled(config: Settings, model_created: int) -> Price:
    """The settings' price of a model whose layer was built at `model_created`, in Unix seconds.

    A process cannot know when a setting was changed: PRICE_EFFECTIVE_AT says it. Without that, the price counts as the
    model's first, in force since its layer was built; before, there was nothing to be billed. Raises SettingError.
    """
    since = datetime.fromtimestamp(model_created, UTC)
    if text := config.price_effective_at:
        try:
            since = datetime.fromisoformat(text)
        except ValueError:
            since = datetime.min
        if since.tzinfo is None:
            raise SettingError(
                f"PRICE_EFFECTIVE_AT={text}: expected a time with its zone, such as 2026-11-01T00:00:00Z"
            )
    price = Price(since.astimezone(UTC), config.input_per_mtok, config.input_per_mtok * config.batch_factor)
    for name, usd in (
        ("INPUT_PER_MTOK", price.input_per_mtok),
        ("INPUT_PER_MTOK times BATCH_FACTOR", price.batch_input_per_mtok),
    ):
        if not AMOUNT.fullmatch(f"{usd.normalize():f}"):
            raise SettingError(f"{name}: a price of {usd:f} USD; expected at most 9 digits and {DECIMALS} decimals")
    return price


def rfc3339(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _row(item: Mapping[str, Any]) -> Row:
    account, _, text = item["sk"]["S"].partition("#")
    since, price = datetime.fromisoformat(text), None
    if "input_per_mtok" in item:
        price = Price(since, *(Decimal(item[name]["N"]) for name in ("input_per_mtok", "batch_input_per_mtok")))
    return Row(item["model"]["S"], account, since, price)


if __name__ == "__main__":
    from handler.billing import pricetool

    sys.exit(pricetool.main())
