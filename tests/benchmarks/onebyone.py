"""The plain server's application, but for the engine: it has one request at a time, as if nobody else were there."""

import threading
from typing import Any

from fastapi import FastAPI

from handler.api import app
from handler.engine.calls import Matrix
from handler.engine.engine import Engine

_turn, _encode = threading.Lock(), Engine.encode


def _alone(engine: Engine, *arguments: Any) -> Matrix:
    with _turn:
        return _encode(engine, *arguments)


def create_app() -> FastAPI:
    Engine.encode = _alone  # type: ignore[assignment, method-assign]
    return app.create_app()
