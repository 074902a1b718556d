"""What a token costs; a record keeps the price it was written with."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from handler.settings import SettingError, Settings


@dataclass(frozen=True)
class Price:
    """USD per million input tokens, the part of it that a batch's tokens cost, and since when, in UTC."""

    input_per_mtok: Decimal
    batch_factor: Decimal
    effective_at: datetime

    @property
    def batch_input_per_mtok(self) -> Decimal:
        return self.input_per_mtok * self.batch_factor


def current(config: Settings, model_created: int) -> Price:
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
    return Price(config.input_per_mtok, config.batch_factor, since.astimezone(UTC))
