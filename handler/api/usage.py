"""What has been used and what it costs: `GET /v1/organization/usage/embeddings` and `/v1/organization/costs` for an
account's admin keys, `GET /v1/usage` for the calling key.

Their modules are loaded when they are asked for: no embedding needs them.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from handler.api import auth
from handler.billing.keys import ROLES
from handler.contract.body import JSON

if TYPE_CHECKING:
    from handler.books import Books

router = APIRouter()


@router.get("/v1/organization/usage/embeddings")
async def usage(request: Request) -> Response:
    """Tokens and requests, in buckets of a minute, an hour or a day."""
    return await _report(request, "embeddings")


@router.get("/v1/organization/costs")
async def costs(request: Request) -> Response:
    """Exact USD, day by day."""
    return await _report(request, "costs")


@router.get("/v1/usage")
async def own(request: Request) -> Response:
    """What the calling key has used in the last days; an admin key's whole account."""
    caller = await auth.caller(request, request.app.state.service, *ROLES)
    from handler.contract import usage

    days = usage.check_days(_query(request))
    return await _answer(request, lambda books: books.own(caller, days))


async def _report(request: Request, name: str) -> Response:
    caller = await auth.caller(request, request.app.state.service, "admin")
    from handler.contract import usage

    query = usage.check(usage.REPORTS[name], _query(request), time.time())
    return await _answer(request, lambda books: books.page(query, caller))


async def _answer(request: Request, tell: Callable[["Books"], bytes]) -> Response:
    from handler.books import Books

    state = request.app.state
    books = Books(state.service.settings.rollups_table)
    return Response(await state.tellers.run(partial(tell, books)), media_type=JSON)


def _query(request: Request) -> str:
    query: bytes = request.scope["query_string"]
    return query.decode("latin-1")
