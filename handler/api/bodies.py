"""A request's JSON body as bytes: refused by its kind and size before it is read."""

from starlette.requests import Request

from handler.contract import errors


async def read(request: Request, limit: int) -> bytes:
    """At most `limit` bytes. Any content type, or none, will do if the body is JSON. Raises 415 or 413."""
    kind = request.headers.get("content-type", "")
    if kind.lower().startswith("multipart/form-data"):
        raise errors.UNSUPPORTED_MEDIA.error(value=kind.partition(";")[0])
    length = request.headers.get("content-length", "").lstrip("0")
    if length.isdecimal() and (len(length) > len(str(limit)) or int(length) > limit):
        raise errors.BODY_TOO_LARGE.error(n=length, limit=limit)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise errors.BODY_TOO_LARGE.error(n=len(body), limit=limit)
    return bytes(body)
