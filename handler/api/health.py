"""`GET /health`: the process lives. `GET /ready` and `/ping`: a token has gone through the model."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from handler.api import coding
from handler.contract import errors
from handler.reach import RETRY_S
from handler.service import Service

router = APIRouter()


@router.get("/health")
async def health(request: Request) -> Response:
    coding.refuse(request.headers)
    return JSONResponse({"status": "ok"})


@router.get("/ready")
@router.get("/ping")
async def ready(request: Request) -> Response:
    coding.refuse(request.headers)
    service: Service = request.app.state.service
    if not service.ready:
        raise errors.try_again(errors.LOADING, RETRY_S)
    return JSONResponse({"status": "ready"})
