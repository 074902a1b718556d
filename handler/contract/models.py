"""A served model as the wire shows it, and the rows of `GET /v1/models`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from handler.contract import errors


@dataclass(frozen=True)
class Model:
    """`context` counts the special tokens, `content_tokens` does not; prices are USD per million tokens."""

    id: str
    aliases: tuple[str, ...]
    created: int
    owned_by: str
    dimensions: int
    context: int
    content_tokens: int
    outputs: tuple[str, ...]
    quantization: str
    weights: str
    revision: str | None
    description: str
    input_per_mtok: Decimal
    batch_input_per_mtok: Decimal
    priced_since: datetime

    @property
    def names(self) -> tuple[str, ...]:
        return self.id, *self.aliases

    @property
    def supports(self) -> list[str]:
        return ["embeddings", *(name for name in ("sparse", "multi_vector") if name in self.outputs)]

    def row(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "model",
            "created": self.created,
            "owned_by": self.owned_by,
            "category": "embedding",
            "supports": self.supports,
            "context_window": self.context,
            "dimensions": self.dimensions,
            "input_per_mtok": float(self.input_per_mtok),
            "output_per_mtok": 0,
            "aliases": list(self.aliases),
            "quantization": self.quantization,
            "weights": self.weights,
            "revision": self.revision,
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """Its own row, then one for each alias that pickers find, because they filter names on `embed`."""
        yield self.row()
        for alias in self.aliases:
            if "embed" in alias:
                yield self.row() | {"id": alias, "alias_of": self.id}

    def price(self) -> dict[str, Any]:
        return {
            "model": self.id,
            "currency": "USD",
            "effective_at": _rfc3339(self.priced_since),
            "input_per_mtok": float(self.input_per_mtok),
            "output_per_mtok": 0,
            "cached_input_per_mtok": None,
            "unit_price_usd": None,
            "billing_unit": "tokens",
            "resolution_tier": None,
            "quality_tier": None,
            "batch_input_per_mtok": float(self.batch_input_per_mtok),
        }

    def card(self, *, healthy: bool) -> dict[str, Any]:
        """The model in FlexAI's catalogue; a name to display is the id in capitals, as theirs is."""
        return {
            "slug": self.id,
            "model_name": self.id,
            "display_name": self.id.replace("-", " ").upper(),
            "description": self.description,
            "category": "embedding",
            "context_window": self.context,
            "max_output": 0,
            "input_per_mtok": float(self.input_per_mtok),
            "output_per_mtok": 0,
            "supports": self.supports,
            "pricing": [],
            "health_status": "healthy" if healthy else "unhealthy",
            "provider": self.owned_by,
        }


def _rfc3339(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


class Models:
    """The models served here, by id and alias, compared exactly."""

    def __init__(self, *models: Model) -> None:
        self.all = models
        self._by_name: Mapping[str, Model] = {name: model for model in models for name in model.names}

    def find(self, name: str) -> Model:
        """Raises 404 `model_not_found`."""
        try:
            return self._by_name[name]
        except KeyError:
            raise errors.UNKNOWN_MODEL.error(param="model", id=name) from None

    def listing(self) -> dict[str, Any]:
        return {"object": "list", "data": [row for model in self.all for row in model.rows()]}

    def one(self, name: str) -> dict[str, Any]:
        """The row of an id or alias, named as asked."""
        model = self.find(name)
        return model.row() | ({} if name == model.id else {"id": name, "alias_of": model.id})

    def pricing(self, now: datetime) -> dict[str, Any]:
        return {"object": "list", "data": [model.price() for model in self.all], "generated_at": _rfc3339(now)}

    def catalogue(self, *, healthy: bool) -> list[dict[str, Any]]:
        return [model.card(healthy=healthy) for model in self.all]
