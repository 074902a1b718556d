"""How fast an encoder can be on this machine: its operations at the peaks that were measured beside it."""

from collections.abc import Iterable
from dataclasses import dataclass

from model_layer.catalog import Geometry

# What the peaks are measured on: 512 rows with bge-m3's widest matrix, so often, in int8 or in float32.
ROWS, INNER, COLUMNS, TIMES = 512, 1024, 4096, 8
OPERATIONS = 2 * ROWS * INNER * COLUMNS * TIMES
INT8, FP32 = 1, 2


@dataclass(frozen=True)
class Peaks:
    """Operations a second of a large matrix product alone."""

    int8: float
    fp32: float


@dataclass(frozen=True)
class Work:
    """Operations of encoding some texts: matrix products with weights, and attention's with each other."""

    tokens: int
    products: float
    attention: float

    def rate(self, precision: str, peaks: Peaks) -> float:
        """Tokens a second, if nothing but these operations took time. In int8 attention counts at float32's peak, in
        which it is commonly done."""
        products = self.products / (peaks.int8 if precision == "int8" else peaks.fp32)
        return self.tokens / (products + self.attention / peaks.fp32)


def work(geometry: Geometry, lengths: Iterable[int]) -> Work:
    """An operation is a multiplication or an addition. A token's products are with query, key, value and output
    [hidden, hidden] and the two of the feed-forward network [hidden, intermediate]; its attention is two products of
    [hidden] with all tokens of its text."""
    lengths = list(lengths)
    hidden, tokens = geometry.hidden, sum(lengths)
    weights = 4 * hidden * hidden + 2 * hidden * geometry.intermediate
    pairs = sum(length * length for length in lengths)
    return Work(tokens, 2.0 * tokens * weights * geometry.layers, 4.0 * pairs * hidden * geometry.layers)
