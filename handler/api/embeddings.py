"""`POST /v1/embeddings`."""

import hashlib
from datetime import UTC, datetime
from functools import partial

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from handler.api import auth, bodies
from handler.api.frame import JSON
from handler.billing.keys import Caller
from handler.billing.ledger import Work
from handler.service import Answer, Service

router = APIRouter()


@router.post("/v1/embeddings")
@router.post("/invocations")  # SageMaker's name for it
async def embeddings(request: Request) -> Response:
    """Embed one text, or up to 2,048, as text or as token ids."""
    came = datetime.now(UTC)
    service: Service = request.app.state.service
    caller = await auth.caller(request, service, "inference")
    raw = await bodies.read(request, service.settings.max_body_bytes)
    work_id = request.state.request_id.removeprefix("req_")
    do = partial(_answer, service, raw, caller, work_id, came, request.app.state.room)
    answer = await to_thread.run_sync(do, limiter=request.app.state.workers)
    request.state.tokens = answer.tokens
    request.state.plain = answer.encoding_format == "base64"
    headers = dict(answer.headers)
    if request.headers.get("x-emblet-timing") == "true":
        headers["server-timing"] = ", ".join(f"{part};dur={ms:.2f}" for part, ms in answer.timing.items())
    return Response(answer.body, headers=headers, media_type=JSON)


def _answer(service: Service, raw: bytes, caller: Caller, work_id: str, came: datetime, room: int | None) -> Answer:
    work = Work(work_id, hashlib.sha256(raw).hexdigest()[:16], came, "http")
    return service.embed(service.read(raw), caller, work, room)
