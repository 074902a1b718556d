"""`GET /health`: the process lives. `GET /ready` and `/ping`: a token has gone through the model."""

from fastapi import APIRouter, Request

from handler.contract import errors
from handler.service import RETRY_S, Service

router = APIRouter()


@router.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/ready")
@router.get("/ping")
async def ready(request: Request) -> dict[str, str]:
    service: Service = request.app.state.service
    if not service.ready:
        raise errors.try_again(errors.LOADING, RETRY_S)
    return {"status": "ready"}
