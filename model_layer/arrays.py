"""A checkpoint's arrays as an encoder's graph has them, by their names in it."""

import numpy as np
import numpy.typing as npt

from model_layer.catalog import Geometry
from model_layer.sources import Source, shapes

Array = npt.NDArray[np.float32]
WORDS, POSITIONS = "word_embeddings", "position_embeddings"


class Arrays:
    """Each is read when it is asked for. Raises SourceError where one is missing or has another shape."""

    def __init__(self, source: Source, geometry: Geometry) -> None:
        self._source, self._geometry, self._shapes = source, geometry, shapes(geometry)

    def table(self, name: str) -> Array:
        """float32 [rows, hidden] of WORDS or POSITIONS; the first token type is folded into the latter."""
        geometry = self._geometry
        rows = geometry.vocabulary if name == WORDS else geometry.positions
        table = self._source.tensor(f"embeddings.{name}.weight", rows, geometry.hidden)
        if name == POSITIONS:
            kinds = self._source.tensor(
                "embeddings.token_type_embeddings.weight", geometry.token_types, geometry.hidden
            )
            table = table + kinds[0]
        return table

    def weight(self, name: str) -> Array:
        """float32 [outputs, inputs] of a matrix, [hidden] of a norm."""
        return self._tensor(f"{name}.weight")

    def bias(self, name: str) -> Array:
        return self._tensor(f"{name}.bias")

    def _tensor(self, name: str) -> Array:
        if name.startswith("embeddings."):
            return self._source.tensor(name, self._geometry.hidden)
        return self._source.tensor(name, *self._shapes[name.split(".", 3)[3]])
