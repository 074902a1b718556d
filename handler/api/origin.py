"""What an HTTP request says of itself as a piece of work: when it came, its Idempotency-Key, which attempt it is."""

import hashlib
import math
import re
from datetime import UTC, datetime

from starlette.datastructures import Headers
from starlette.requests import Request

from handler.billing import entries
from handler.billing.work import Attempt, Identity, Work
from handler.contract import errors

_KEY = re.compile(r"[ -~]{1,255}")
_COUNT = re.compile(r"[0-9]{1,3}")
_PATIENCE_S = 600.0  # both SDKs' timeout, where they do not say


def time(request: Request) -> datetime:
    """When a request came in: as its function URL's event says, so that one delivered twice is the same request."""
    try:
        return datetime.fromtimestamp(request.scope["aws.event"]["requestContext"]["timeEpoch"] / 1000, UTC)
    except (KeyError, TypeError, ValueError, OverflowError):
        return datetime.now(UTC)


def work(request: Request, came: datetime, raw: bytes) -> Work:
    """The piece of work that a request with this body is. Raises 400 for an Idempotency-Key that is none."""
    identity = _identity(request, raw)
    attempt = None if identity else _attempt(request.headers)
    work_id = request.state.request_id.removeprefix("req_")
    return Work(work_id, hashlib.sha256(raw).hexdigest(), came, "http", identity, attempt)


def _identity(request: Request, raw: bytes) -> Identity | None:
    """Repeated headers are one, as a function URL joins them."""
    if not (given := request.headers.getlist("idempotency-key")):
        return None
    key = ",".join(given)
    if not _KEY.fullmatch(key):
        raise errors.IDEMPOTENCY_KEY.error(param="Idempotency-Key")
    asked = hashlib.sha256(f"{request.method} {request.scope['path']}\n".encode() + raw).hexdigest()
    return Identity("http", hashlib.sha256(key.encode()).hexdigest(), asked, entries.HTTP_S)


def _attempt(headers: Headers) -> Attempt:
    """openai-python and openai-node number a call's attempts from 0, and name their timeout differently."""
    count = headers.get("x-stainless-retry-count", "")
    if not _COUNT.fullmatch(count):
        return Attempt()
    try:
        patience = float(headers.get("x-stainless-read-timeout") or headers.get("x-stainless-timeout") or _PATIENCE_S)
    except ValueError:
        patience = _PATIENCE_S
    return Attempt(int(count), patience if math.isfinite(patience) and patience > 0 else _PATIENCE_S)
