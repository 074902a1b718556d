"""For people and their tools: `/` and `/docs`, a page that needs no other host, and `/openapi.json`.

Both are made when they are asked for, and so are their modules loaded: no embedding needs them.
"""

import re

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from handler.api import coding
from handler.service import Service

router = APIRouter()

_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d+)?|\[[0-9a-fA-F:.]+\](:\d+)?")
# The page may load nothing and run nothing; its style is its own.
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}


@router.get("/")
@router.get("/docs")
async def docs(request: Request) -> Response:
    """How to call this deployment, in HTML."""
    coding.refuse(request.headers)
    from handler.api import page

    service: Service = request.app.state.service
    models = await run_in_threadpool(service.priced)
    config, room = service.settings, request.app.state.room
    html = page.render(models, address(request), config.max_body_bytes, room, jobs=config.jobs_table != "")
    return Response(html, headers=_HEADERS, media_type="text/html")


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """The interface in OpenAPI 3.1."""
    coding.refuse(request.headers)
    from handler.contract import openapi

    state = request.app.state
    service: Service = state.service
    bounded = state.room is not None
    deployment = openapi.Deployment(
        service.rules,
        bounded=bounded,
        redirects=bounded and service.settings.results_bucket != "",
        metered=state.metrics is not None,
        jobs=service.settings.jobs_table != "",
    )
    return JSONResponse(openapi.document(service.models, address(request), deployment))


def address(request: Request) -> str:
    """This deployment's own URL as its caller has written it: behind a proxy, the scheme is the proxy's."""
    host, scheme = request.headers.get("host", ""), request.headers.get("x-forwarded-proto", request.url.scheme)
    return f"{'https' if scheme == 'https' else 'http'}://{host if _HOST.fullmatch(host) else 'localhost'}"
