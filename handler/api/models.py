"""What is served here and what it costs: `GET /v1/models`, `/v1/models/{id}`, and in public `/v1/pricing` and FlexAI's
catalogue, `/api/models`."""

from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from handler.api import auth, coding
from handler.billing.keys import ROLES
from handler.service import Service

router = APIRouter()


@router.get("/v1/models")
async def models(request: Request) -> Response:
    """The models served here, and a row for each alias that pickers look for."""
    service: Service = request.app.state.service
    await auth.caller(request, service, *ROLES)
    return JSONResponse((await run_in_threadpool(service.priced)).listing())


@router.get("/v1/models/{name:path}")
async def model(request: Request) -> Response:
    """One model, by its id or an alias; slashes in either form."""
    service: Service = request.app.state.service
    await auth.caller(request, service, *ROLES)
    return JSONResponse((await run_in_threadpool(service.priced)).one(request.path_params["name"]))


@router.get("/v1/pricing")
async def pricing(request: Request) -> Response:
    """What a million tokens of each model cost now."""
    coding.refuse(request.headers)
    service: Service = request.app.state.service
    return JSONResponse((await run_in_threadpool(service.priced)).pricing(datetime.now(UTC)))


@router.get("/api/models")
async def catalogue(request: Request) -> Response:
    """The models as a bare array."""
    coding.refuse(request.headers)
    service: Service = request.app.state.service
    return JSONResponse((await run_in_threadpool(service.priced)).catalogue(healthy=service.ready))
