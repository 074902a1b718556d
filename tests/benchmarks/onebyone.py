"""The plain server's application, but for the engine: what its callers' requests share. Each goes to the session by
itself, a text a run, as if nobody else were there, and nothing was there for others."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import FastAPI

from handler.api import app
from handler.engine.calls import Matrix
from handler.engine.engine import Engine

_turn = threading.Lock()


def _alone(engine: Engine, ids: Sequence[Sequence[int]], *_: Any) -> Matrix:
    session = engine._turns._sessions.whole
    feeds = ({"input_ids": np.array(each, np.int64), "lengths": np.array([len(each)], np.int64)} for each in ids)
    with _turn:
        return np.concatenate([session.run(["dense"], feed)[0] for feed in feeds])


def create_app() -> FastAPI:
    Engine.encode = _alone  # type: ignore[assignment, method-assign]
    return app.create_app()
