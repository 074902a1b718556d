"""Bodies of requests: refused by kind and size before they are read, and read where there is memory for them."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from anyio import Event, Lock, fail_after
from starlette.datastructures import Headers
from starlette.requests import Request

from handler.contract import errors
from handler.reach import RETRY_S
from handler.settings import Settings

_UNCOUNTED = 1 << 16  # bytes that the server holds of any connection in any case (uvicorn, HIGH_WATER_LIMIT)


class Bodies:
    """The bodies in memory: MAX_BODY_BYTES of one, MAX_BODIES_BYTES of all, beside the first 64 KiB of each.

    A body has room for the whole of itself before more of it is read, so that of bodies which together would have none
    one is read after the other. Room is given in the order in which it was asked for.
    """

    def __init__(self, config: Settings) -> None:
        self._most, self._patience_s = config.max_body_bytes, config.max_queue_seconds
        self._free = max(config.max_bodies_bytes, config.max_body_bytes)  # the largest body finds room, if alone
        self._counted = not config.aws_lambda_runtime_api  # there it is in memory with its event, before we hear of it
        self._line, self._freed = Lock(), Event()

    @asynccontextmanager
    async def read(self, request: Request, seconds: float, *, forms: bool = False) -> AsyncIterator[bytes]:
        """A body, which has its room for as long as the block lasts. Any content type, or none, will do for JSON;
        `forms`: multipart/form-data is taken, too, and what is too large can come another way.

        Raises 415 or 413; and 503 where there was no room within MAX_QUEUE_SECONDS, or where after `seconds` the body
        is not all there: what does not come keeps others' room.
        """
        too_large = errors.FILE_TOO_LARGE if forms else errors.BODY_TOO_LARGE
        expected, body, room = self._expected(request.headers, too_large, forms=forms), bytearray(), 0
        try:
            with _in_time(seconds):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self._most:
                        raise too_large.error(n=len(body), limit=self._most)
                    if len(body) > _UNCOUNTED and not room and self._counted:
                        await self._take(expected)
                        room = expected
            if room:  # of a body that did not tell its length, what it has not needed
                self._give(room - len(body))
                room = len(body)
            raw = bytes(body)
            body.clear()
            yield raw
        finally:
            self._give(room)

    def _expected(self, headers: Headers, too_large: errors.Problem, *, forms: bool) -> int:
        """Bytes of the body, at most where it does not say. Raises 415 or 413."""
        kind = headers.get("content-type", "")
        if (media := kind.partition(";")[0].strip()).lower() == "multipart/form-data" and not forms:
            raise errors.UNSUPPORTED_MEDIA.error(value=media)
        length = headers.get("content-length", "").lstrip("0")
        if not length.isdecimal():
            return self._most
        if len(length) > len(str(self._most)) or int(length) > self._most:
            raise too_large.error(n=length, limit=self._most)
        return self._most if "transfer-encoding" in headers else int(length)  # which overrides it (RFC 9112, 6.3)

    async def _take(self, size: int) -> None:
        if size <= self._free and not self._line.locked():
            self._free -= size
            return
        with _in_time(self._patience_s):
            async with self._line:  # who wants much is not passed by those who want little
                while self._free < size:
                    self._freed = Event()
                    await self._freed.wait()
                self._free -= size

    def _give(self, size: int) -> None:
        self._free += size
        self._freed.set()


@contextmanager
def _in_time(seconds: float) -> Iterator[None]:
    """503 for what is not done within so many."""
    try:
        with fail_after(seconds):
            yield
    except TimeoutError:
        raise errors.try_again(errors.OVERLOADED, RETRY_S) from None
