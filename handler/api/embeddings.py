"""`POST /v1/embeddings`."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from handler.accepted import Accepted, Clock, Door
from handler.api import auth, origin
from handler.billing.keys import Caller
from handler.billing.ledger import Work
from handler.contract.body import JSON
from handler.contract.errors import ApiError
from handler.service import Service

router = APIRouter()

# Kept of the time that Lambda gives a call, for what comes after the engine: a record that neither DynamoDB nor the
# ledger queue takes, which can last two and a half seconds, and the answer's way out. Of a short call it is a part.
_RESERVE_S, _RESERVE = 3.0, 0.2


@router.post("/v1/embeddings")
@router.post("/invocations")  # SageMaker's name for it
async def embeddings(request: Request) -> Response:
    """Embed one text, or up to 2,048, as text or as token ids."""
    came, door, state = origin.time(request), _door(request), request.app.state
    service: Service = state.service
    door.clock.lap("app")
    caller = await auth.caller(request, service, "inference")
    door.clock.lap("auth")
    async with state.bodies.read(request, door.seconds) as raw, _watched(request, door.gone):
        door.clock.lap("read")
        accept = partial(_accept, service, raw, caller, door, partial(origin.work, request, came))
        # Two steps, on threads of their own: what the engine has no time for is refused however many wait for it.
        accepted = await state.readers.run(accept)
        try:
            answer = await state.workers.run(partial(service.answer, accepted))
        finally:  # where no worker has come to it: a server that ends cancels what waits
            accepted.drop()
    request.state.tokens = answer.tokens
    request.state.plain = answer.packed
    headers = dict(answer.headers)
    if request.headers.get("x-emblet-timing") == "true":
        headers["server-timing"] = ", ".join(f"{part};dur={ms:.2f}" for part, ms in answer.timing.items())
    return Response(answer.body, answer.status, headers, JSON)


@asynccontextmanager
async def _watched(request: Request, gone: threading.Event) -> AsyncIterator[None]:
    """Within the block, `gone` is set once the client has hung up; what is refused then is told to nobody."""
    if "aws.context" in request.scope:  # Lambda tells of no hanging up
        yield
        return

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone.set()

    watching = asyncio.create_task(watch())
    try:
        yield
    except ApiError:
        if gone.is_set():
            raise ClientDisconnect from None
        raise
    finally:
        watching.cancel()


def _door(request: Request) -> Door:
    state = request.app.state
    context = request.scope.get("aws.context")  # Mangum's; a rehearsal has none
    if context is None:
        seconds = float(state.service.settings.request_seconds)
    else:
        seconds = context.get_remaining_time_in_millis() / 1000
        seconds -= min(_RESERVE_S, seconds * _RESERVE)
    clock, redirects = Clock(request.state.start), auth.survives_redirects(request.headers)
    return Door(state.room, redirects, time.monotonic() + seconds, seconds, clock=clock)


def _accept(service: Service, raw: bytes, caller: Caller, door: Door, work: Callable[[bytes], Work]) -> Accepted:
    named = work(raw)
    return service.accept(service.read(raw), caller, named, door)
