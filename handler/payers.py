"""Who pays for work that comes without a bearer key, and at what price."""

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from handler.billing.keys import Caller, Keys
from handler.billing.prices import Prices
from handler.contract import errors
from handler.contract.limits import NO_LIMITS


@dataclass(frozen=True)
class Payer:
    """Who pays, at what price of a million tokens, for work whose record is of a time."""

    caller: Caller
    price: Decimal
    time: datetime

    @property
    def without_limits(self) -> "Payer":
        """For what has been counted already."""
        return replace(self, caller=replace(self.caller, limits=NO_LIMITS, account_limits=NO_LIMITS))


class Payers:
    """Those of messages and batches for a model. Every call raises StoreUnavailableError."""

    def __init__(self, keys: Keys, prices: Prices, model: str) -> None:
        self._keys, self._prices, self._model = keys, prices, model

    def of_message(self, account: str, key_id: str | None, came: datetime) -> Payer:
        """One of an account's keys that embed, or all of them together. Raises 401 where there is no such key."""
        caller = self._keys.of_account(account) if key_id is None else self._keys.named(key_id)
        if caller is None or caller.account != account or caller.role != "inference":
            raise errors.WRONG_KEY.error()
        return Payer(caller, self._prices.at(self._model, account, came).of("message"), came)

    def of_batch(self, account: str, key_hash: str, came: datetime) -> Payer:
        """The key that has asked for the batch, by its SHA-256; all of the account's together where there is none ("",
        or one that is not known any more). The price is that of when it came, whenever its shards are done."""
        caller = self._keys.behind(key_hash) if key_hash else None
        price = self._prices.at(self._model, account, came).of("batch")
        return Payer(caller or self._keys.of_account(account), price, came)
