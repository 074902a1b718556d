"""Files of an account: `POST /v1/files`, its list, one of them, its content, and its end.

Their modules are loaded when they are asked for: no embedding needs them.
"""

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from handler.api import auth
from handler.api.stores import reached
from handler.billing.keys import Caller

if TYPE_CHECKING:
    from handler.batches.files import Files

router = APIRouter()

_BYTES = "application/octet-stream"


@router.post("/v1/files")
async def create(request: Request) -> Response:
    """Take a file, or promise to: a form brings its bytes, JSON says how many will be put to S3."""
    caller, files = await _asked(request)
    from handler.api import forms
    from handler.contract import body
    from handler.contract import files as wire

    state, kind = request.app.state, request.headers.get("content-type", "")
    async with state.bodies.read(request, state.service.settings.request_seconds, forms=True) as raw:
        if kind.lower().startswith("multipart/"):
            parts = forms.read(kind, raw)
            name = parts["file"].filename if "file" in parts else None
            texts = [part for part in parts.values() if part.name != "file" or name is None]
            words = {part.name: part.body.decode("utf-8", "replace") for part in texts}
            upload = wire.form(words, name)
            file = await reached(request, lambda: files.put(caller.account, upload, parts["file"].body))
            return JSONResponse(file.wire())
        upload = wire.promised(body.read(raw))
    file, slot = await reached(request, lambda: files.promise(caller.account, upload))
    return JSONResponse(file.wire() | {"upload": slot.wire()})


@router.get("/v1/files")
async def listing(request: Request) -> Response:
    """A page of the account's files, the newest first unless asked otherwise."""
    caller, files = await _asked(request)
    from handler.contract import files as wire

    page = wire.page(request.query_params, wire.MOST, wire.MOST)
    found, more = await reached(request, lambda: files.list(caller.account, page))
    return JSONResponse(wire.listed([file.wire() for file in found], more=more))


@router.get("/v1/files/{id}")
async def one(request: Request) -> Response:
    """One file."""
    caller, files = await _asked(request)
    file = await reached(request, lambda: files.find(caller.account, _id(request)))
    return JSONResponse(file.wire())


@router.delete("/v1/files/{id}")
async def delete(request: Request) -> Response:
    """Forget a file."""
    caller, files = await _asked(request)
    await reached(request, lambda: files.delete(caller.account, _id(request)))
    return JSONResponse({"id": _id(request), "object": "file", "deleted": True})


@router.get("/v1/files/{id}/content")
async def content(request: Request) -> Response:
    """A file's bytes; where the host cannot return so many, the way to them."""
    caller, files = await _asked(request)
    file = await reached(request, lambda: files.readable(caller.account, _id(request)))
    room = request.app.state.room
    if room is not None and file.bytes * 4 > room * 3:  # Lambda carries bytes as base64
        url = await reached(request, lambda: files.address(file))
        return Response(status_code=303, headers={"location": url})
    chunks = await reached(request, lambda: files.read(file))
    return StreamingResponse(chunks, headers={"content-length": str(file.bytes)}, media_type=_BYTES)


async def _asked(request: Request) -> tuple[Caller, "Files"]:
    """Raises 401, 403 or 503."""
    service = request.app.state.service
    caller = await auth.caller(request, service, "inference")
    from handler.batches.files import Files

    return caller, Files.open(service.settings)


def _id(request: Request) -> str:
    path: dict[str, Any] = request.path_params
    return str(path["id"])
