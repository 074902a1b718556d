"""Who is calling: a credential out of the headers, a caller out of the Keys table, and whether its role may."""

import base64

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request

from handler.api import coding
from handler.billing.keys import Caller
from handler.contract import errors
from handler.service import Service


def credential(headers: Headers) -> str | None:
    """The clear key: Bearer, or the password of Basic, in `Authorization`; else `api-key`, else `x-api-key`.

    Another scheme, such as AWS's signature, is passed over.
    """
    scheme, _, value = headers.get("authorization", "").replace("\t", " ").strip().partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer" and value:
        return value
    if scheme.lower() == "basic" and value:
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except ValueError:  # no base64, or no UTF-8 in it
            return ""  # a credential, but no key of ours
    return headers.get("api-key", "").strip() or headers.get("x-api-key", "").strip() or None


def survives_redirects(headers: Headers) -> bool:
    """Whether no key would be sent on: clients drop `Authorization` on their way to another host, and nothing else."""
    return "api-key" not in headers and "x-api-key" not in headers


async def caller(request: Request, service: Service, *roles: str) -> Caller:
    """The request's caller, whose role must be one of these. Raises 401, 403 or 503, and then 415 for a coded body:
    what comes next in the order of checks, on every route."""
    clear = credential(request.headers)
    if clear is None:
        raise errors.NO_KEY.error()
    # A key that is remembered costs no thread: those may all be waiting for the engine.
    found = service.keys.remembered(clear)
    if found is None:
        found = await run_in_threadpool(service.authenticate, clear)
    request.state.account = found.account
    if found.role not in roles:
        raise errors.WRONG_ROLE.error(
            role=found.role, method=request.method, path=request.scope["path"], needed=" or ".join(roles)
        )
    coding.refuse(request.headers)
    return found
