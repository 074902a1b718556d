"""The paths of the door: the one spelling each has inside, and the methods it takes."""

from collections.abc import Sequence

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, compile_path

SERVER = "*"  # what OPTIONS asks of the server as a whole (RFC 9110, 9.3.7)

_ORDER = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Paths:
    """What an application's routes say of a path; it keeps no list of its own."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        methods: dict[str, set[str]] = {}
        for route in iter_route_contexts(routes):
            if route.path and route.methods:
                methods.setdefault(route.path, {"OPTIONS"}).update(route.methods)
        self._routes = [(compile_path(path)[0], path, _with_head(taken)) for path, taken in methods.items()]
        self._bare = {path.split("/")[2] for path in methods if path.startswith("/v1/")}

    def canonical(self, path: str) -> str:
        """The path that is meant: `//` and a trailing slash make no difference, nor does a missing `/v1`.

        Never a redirect: that would lose the caller's key or turn a POST into a GET. A line feed is written as it was
        sent, because Starlette's patterns end at one: `/health` and a line feed would be `/health`.
        """
        if path == SERVER:
            return path
        parts = [part for part in path.replace("\n", "%0A").split("/") if part]
        if parts and parts[0] in self._bare:
            parts.insert(0, "v1")
        return "/" + "/".join(parts)

    def route(self, path: str) -> str | None:
        """The route of a canonical path, such as `/v1/models/{name:path}`; None for no route of ours."""
        return next((route for pattern, route, _ in self._routes if pattern.match(path)), None)

    def allow(self, path: str) -> str:
        """Every method of a canonical path as the header `Allow` lists them, whichever route takes it; "" for none."""
        asked = (methods for pattern, _, methods in self._routes if path == SERVER or pattern.match(path))
        taken: set[str] = set().union(*asked)
        return ", ".join(sorted(taken, key=_ORDER.index))


def _with_head(methods: set[str]) -> set[str]:
    return methods | {"HEAD"} if "GET" in methods else methods
