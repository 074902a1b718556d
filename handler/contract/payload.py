"""How large an answer will be, known before anything is computed, and how large a door lets it be."""

from bisect import bisect_left
from collections.abc import Sequence

from handler.contract import errors

# A buffered Lambda function URL returns 6 MiB of the handler's JSON-encoded result; so much of it is kept for head and
# envelope. (AWS Lambda developer guide, "Lambda quotas": 6 MB each way.)
LAMBDA_BYTES = 6 * (1 << 20) - 8192

_FRAME = 61  # of an item around its vector, quotes escaped as in the result, with an index of four digits
_LISTED = 5  # of an index of four digits, and its comma, in `truncated` or `averaged`
_DIGITS = 17  # of a float32: sign, point, digits, exponent and comma at their longest


def planned(encoding_format: str, dimensions: int) -> int:
    """Bytes of one item of the answer at most."""
    if encoding_format == "base64":
        return 4 * -(-4 * dimensions // 3) + _FRAME
    return _DIGITS * dimensions + _FRAME


def check(inputs: int, encoding_format: str, dimensions: int, limit: int | None, listed: Sequence[int] = ()) -> None:
    """Raise 400 `response_too_large`, naming the longest head of the request that fits, if the answer could pass the
    limit.

    `listed`: indexes, ascending, that the answer names beside the vectors.
    """
    each = planned(encoding_format, dimensions)

    def size(head: int) -> int:
        return head * each + bisect_left(listed, head) * _LISTED

    if limit is None or size(inputs) <= limit:
        return
    fitting = min(inputs, limit // each)
    while size(fitting) > limit:
        fitting -= 1
    hint = "" if encoding_format == "base64" else ', or "encoding_format": "base64"'
    raise errors.RESPONSE_TOO_LARGE.error(
        param="input", n=inputs, bytes=size(inputs), limit=limit, k=fitting, hint=hint
    )
