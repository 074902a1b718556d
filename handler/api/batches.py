"""Batches of an account: `POST /v1/batches`, their list, one of them, and its cancellation.

Their modules are loaded when they are asked for: no embedding needs them.
"""

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from handler.api import auth, origin
from handler.api.stores import reached
from handler.billing.keys import Caller
from handler.billing.keytext import digest

if TYPE_CHECKING:
    from handler.batches.desk import Desk

router = APIRouter()


@router.post("/v1/batches")
async def create(request: Request) -> Response:
    """Begin a batch of a file's lines."""
    came = origin.time(request)
    caller, desk = await _asked(request)
    from handler.contract import batches, body

    state = request.app.state
    async with state.bodies.read(request, state.service.settings.request_seconds) as raw:
        work = origin.work(request, came, raw)
        asked = batches.asked(body.read(raw))
    key_hash = digest(auth.credential(request.headers) or "")
    again_s = state.service.settings.retry_window if work.attempt and work.attempt.count else 0
    batch, new = await reached(request, lambda: desk.create(asked, caller, key_hash, work.identity, again_s))
    return JSONResponse(batch.wire(), headers={} if new else {"x-emblet-replay": "true"})


@router.get("/v1/batches")
async def listing(request: Request) -> Response:
    """A page of the account's batches, the newest first."""
    caller, desk = await _asked(request)
    from handler.contract import batches, files

    page = batches.page(request.query_params)
    found, more = await reached(request, lambda: desk.jobs.page(caller.account, page))
    return JSONResponse(files.listed([batch.wire() for batch in found], more=more))


@router.get("/v1/batches/{id}")
async def one(request: Request) -> Response:
    """One batch, as far as it is."""
    caller, desk = await _asked(request)
    batch = await reached(request, lambda: desk.jobs.get(caller.account, request.path_params["id"]))
    return JSONResponse(batch.wire())


@router.post("/v1/batches/{id}/cancel")
async def cancel(request: Request) -> Response:
    """Begin nothing more of a batch."""
    caller, desk = await _asked(request)
    batch = await reached(request, lambda: desk.cancel(caller.account, request.path_params["id"]))
    return JSONResponse(batch.wire())


async def _asked(request: Request) -> tuple[Caller, "Desk"]:
    """Raises 401, 403 or 503."""
    service = request.app.state.service
    caller = await auth.caller(request, service, "inference")
    from handler.batches.desk import Desk

    return caller, Desk.open(service.settings)
