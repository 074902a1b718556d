"""What a token costs, in USD per million; a record keeps the price it was written with."""

from decimal import Decimal

INPUT_PER_MTOK = Decimal("0.01")
