"""A served model as the wire shows it, and the rows of `GET /v1/models`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from handler.contract import errors


@dataclass(frozen=True)
class Model:
    """`context` counts the special tokens, `content_tokens` does not; `input_per_mtok` is USD per million tokens."""

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
    input_per_mtok: Decimal

    @property
    def names(self) -> tuple[str, ...]:
        return self.id, *self.aliases

    def row(self) -> dict[str, Any]:
        extras = [name for name in ("sparse", "multi_vector") if name in self.outputs]
        return {
            "id": self.id,
            "object": "model",
            "created": self.created,
            "owned_by": self.owned_by,
            "category": "embedding",
            "supports": ["embeddings", *extras],
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
