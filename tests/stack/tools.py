"""The operator's tools, as a command line calls them and within this process: a new one takes half a second."""

import contextlib
import io
from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest

from handler import settings


class Done(NamedTuple):
    status: int
    out: str
    err: str


def run(main: Callable[[list[str]], int], *words: str, env: Mapping[str, str] | None = None) -> Done:
    """What `python -m` of the tool would print and end with, where these settings are in its environment."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        settings.read.cache_clear()
        try:
            status = main([*words])
        except SystemExit as ended:  # words that are off
            status = int(ended.code or 0)
        finally:
            settings.read.cache_clear()
    return Done(status, out.getvalue(), err.getvalue())
