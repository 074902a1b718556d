"""What a line will cost, as it is estimated before its text becomes tokens."""

from collections.abc import Mapping
from typing import Any

from handler.contract.models import Model
from handler.engine.targets import CPU

TOKEN = 4  # bytes of a line, by and large


def attention(model: Model, size: int, asked: Mapping[str, Any], inputs: int) -> float:
    """Of the texts of a line of `size` bytes each to itself, as the bytes of short texts that cost as much."""
    company = CPU.attention * model.dimensions
    if inputs == 1:
        return size * min(size / TOKEN, model.context) / company
    lengths = [len(each) if isinstance(each, (str, list)) else 1 for each in asked["input"]]
    share = size / max(1, sum(lengths))
    return sum(part * min(part / TOKEN, model.context) for part in (each * share for each in lengths)) / company
