"""HTTP/1.1 of the plain server, uvicorn's `--http`: what is no HTTP gets the envelope too."""

import sys
import uuid

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from handler.contract import errors
from handler.contract.body import JSON


class Http11(H11Protocol):
    """uvicorn's protocol, but for the answer to a head that h11 refuses."""

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Called where h11 has raised, which says why: 431 for a head of more than 64 KiB, else 400."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # an answer has begun: there is no room for another
            return
        too_large = getattr(sys.exception(), "error_status_hint", 400) == errors.HEAD_TOO_LARGE.status
        error = (errors.HEAD_TOO_LARGE if too_large else errors.BROKEN_HTTP).error()
        body = error.body()
        headers = [
            ("content-type", JSON),
            ("content-length", str(len(body))),
            ("connection", "close"),
            ("x-request-id", f"req_{uuid.uuid4().hex}"),
        ]
        for event in (h11.Response(status_code=error.status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:
            self.cycle.disconnected = True  # the request had begun: what is made of it has nowhere to go any more
        self.transport.close()
