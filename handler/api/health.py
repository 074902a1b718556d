"""`GET /health`: the process lives. `GET /ready` and `/ping`: a token has gone through the model."""

from fastapi import APIRouter, Request

from handler.contract import errors
from handler.service import RETRY_S, Service

router = APIRouter()

PROBES = ["GET", "HEAD"]  # some load balancers ask with the second


@router.api_route("/health", methods=PROBES)
async def health() -> dict[str, str]:
    return {"status": "ok"}


@router.api_route("/ready", methods=PROBES)
@router.api_route("/ping", methods=PROBES)
async def ready(request: Request) -> dict[str, str]:
    service: Service = request.app.state.service
    if not service.ready:
        raise errors.try_again(errors.LOADING, RETRY_S)
    return {"status": "ready"}
