"""The HTTP door: a FastAPI application over the service, for Mangum and for a plain HTTP server."""

import logging
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from handler import logs, settings
from handler.api import docs, embeddings, health, models, usage
from handler.api.bodies import Bodies
from handler.api.coding import Gzip
from handler.api.cors import Cors
from handler.api.frame import Frame, reply
from handler.api.paths import Paths
from handler.api.threads import Threads
from handler.contract import errors
from handler.engine.manifest import LayerError
from handler.service import Service
from handler.settings import SettingError

log = logging.getLogger(__name__)

# Requests read at once. Their threads are neither those that look up keys nor those of what the engine has, so that
# none waits for another. Reports hold many buckets in memory while they are summed. The keepers of files and batches
# wait for S3 too, which may take two times twenty seconds to say nothing.
_READERS, _TELLERS, _KEEPERS = 8, 4, 8

_RECORD_S = 3.0  # for a record that neither DynamoDB nor the ledger queue takes: both end within them


def create_app(service: Service | None = None, room: int | None = None) -> FastAPI:
    """The application over a service; without one, over the process's own, which then loads behind the open port.

    `room`: bytes of an answer that the host can return, None for any number.

    Where the process could never serve, it ends at once, with the reason.
    """
    lifespan = None
    if service is None:
        lifespan = _lifespan
        try:
            config = settings.read()
            logs.configure(config)
            service = Service.open(config)
        except (SettingError, LayerError) as error:
            sys.exit(f"error: {error}")
        threading.Thread(target=_load, args=(service,), name="load", daemon=True).start()
    # docs.py has pages of its own
    app = FastAPI(title="emblet", openapi_url=None, redirect_slashes=False, lifespan=lifespan)
    app.state.service, app.state.room = service, room
    alone = bool(service.settings.aws_lambda_runtime_api)
    app.state.readers = Threads(_READERS, alone=alone)
    app.state.workers = Threads(service.settings.max_queue_requests, alone=alone)
    app.state.tellers = Threads(_TELLERS, alone=alone)
    app.state.keepers = Threads(_KEEPERS, alone=alone)
    app.state.bodies = Bodies(service.settings)
    for resource in (embeddings, models, usage, docs, health):
        app.include_router(resource.router)
    if service.settings.jobs_table:
        from handler.api import batches, files

        for jobs in (files, batches):
            app.include_router(jobs.router)
    app.state.metrics = None
    metered = service.settings.metrics == "on" and not service.settings.aws_lambda_runtime_api
    if metered:
        from handler.api import metrics

        app.include_router(metrics.router)
    app.add_exception_handler(HTTPException, _framework_error)
    app.add_middleware(Gzip)
    paths = app.state.paths = Paths(app.routes)
    app.add_middleware(Frame, paths, Cors(service.settings.cors_origins))
    if metered:
        app.state.metrics = metrics.Metrics()
        app.add_middleware(metrics.Metered, paths, app.state.metrics)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Of the process's own service: once the server has drained, or DRAIN_SECONDS have passed, what was done is
    recorded before it ends."""
    yield
    await to_thread.run_sync(app.state.service.close, _RECORD_S)


async def _framework_error(request: Request, error: Exception) -> Response:
    """Starlette's own refusals, in the envelope: an unknown route and a wrong method, with all that its path takes."""
    assert isinstance(error, HTTPException)  # noqa: S101  (what it was registered for)
    method, path = request.method, request.scope["path"]  # not of its URL, which would be parsed anew
    if error.status_code == 405:
        allow = request.app.state.paths.allow(path)
        return reply(errors.WRONG_METHOD.error(headers={"allow": allow}, method=method, path=path))
    if error.status_code == 404:
        return reply(errors.UNKNOWN_URL.error(method=method, path=path))
    raise error


def _load(service: Service) -> None:
    try:
        service.load()
    except Exception:
        log.critical("The model cannot be loaded; the process ends, so that its host starts another.", exc_info=True)
        logging.shutdown()
        os._exit(1)  # from a thread, and before any request was taken
