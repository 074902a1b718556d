"""`GET /v1/models` and `GET /v1/models/{id}`."""

from typing import Any

from fastapi import APIRouter, Request

from handler.api import auth
from handler.billing.keys import ROLES
from handler.service import Service

router = APIRouter()


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """The models served here, and a row for each alias that pickers look for."""
    service: Service = request.app.state.service
    await auth.caller(request, service, *ROLES)
    return service.models.listing()


@router.get("/v1/models/{name:path}")
async def model(request: Request, name: str) -> dict[str, Any]:
    """One model, by its id or an alias; slashes in either form."""
    service: Service = request.app.state.service
    await auth.caller(request, service, *ROLES)
    return service.models.one(name)
