"""Files and batches of a deployment, over HTTP and S3: the calls that a person at a terminal makes, by the standard
library alone."""

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_CHUNK = 1 << 20
_TIMEOUT_S = 60
_REASON = 4096  # bytes of what S3 says, at most


class RemoteError(Exception):
    """The deployment refuses, or cannot be reached; the message is its own."""


class AwayError(RemoteError):
    """It cannot be reached just now, or has too much to do: later it may answer."""


class Remote:
    """The deployment whose API is at `url`, such as `https://…/v1`."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url.rstrip("/"), key

    def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """What an answer says. Raises RemoteError and OSError."""
        with self._open(method, path, body) as answer:
            said = b"".join(self._read(answer))
        try:
            found: dict[str, Any] = json.loads(said)
        except ValueError:
            raise RemoteError(f"{self._url} answers with what is no JSON: is it a deployment's, …/v1?") from None
        return found

    def upload(self, path: Path, sent: Callable[[int, int], None]) -> str:
        """The id of a file of these bytes, put straight to S3, however many; `sent` hears how far it is. Raises
        RemoteError and OSError."""
        size = path.stat().st_size
        file = self.call("POST", "/files", {"filename": path.name, "purpose": "batch", "bytes": size})
        slot = file["upload"]
        where = urlsplit(slot["url"])
        kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
        connection = kind(where.netloc, timeout=_TIMEOUT_S)
        try:
            connection.putrequest(slot["method"], f"{where.path}?{where.query}")
            for name, value in slot["headers"].items():
                connection.putheader(name, value)
            connection.endheaders()
            done = 0
            with path.open("rb") as source:
                while chunk := source.read(_CHUNK):
                    connection.send(chunk)
                    done += len(chunk)
                    sent(done, size)
            answer = connection.getresponse()
            if answer.status != 200:
                said = re.findall(r"<(?:Code|Message)>(.*?)</", answer.read(_REASON).decode(errors="replace"))
                raise RemoteError(f"S3 has not taken {path}: {answer.status} {': '.join(said) or answer.reason}")
        finally:
            connection.close()
        return str(file["id"])

    def download(self, file_id: str, to: Path) -> None:
        """Copy a file's bytes to a path, which has them all or is as it was. Raises RemoteError and OSError."""
        part = to.with_name(f"{to.name}.part")
        with self._open("GET", f"/files/{file_id}/content") as answer, part.open("wb") as copy:
            for chunk in self._read(answer):
                copy.write(chunk)
        part.replace(to)

    def _read(self, answer: Any) -> Iterator[bytes]:
        """An answer to its end. Raises AwayError where that does not come: `read` takes any end of the connection for
        one, if it is told how much to read."""
        try:
            while chunk := answer.read(_CHUNK):
                yield chunk
        except http.client.IncompleteRead:
            raise AwayError(f"{self._url} has ended in the middle of an answer") from None
        if answer.length:
            raise AwayError(f"{self._url} has ended in the middle of an answer, {answer.length} bytes before its end")

    def _open(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"content-type": "application/json"} if body is not None else {}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, headers, method=method)  # noqa: S310  (as it is named)
        # Not sent on where a redirect leads to S3, which would refuse it beside a signature.
        request.add_unredirected_header("authorization", f"Bearer {self._key}")
        try:
            return urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310
        except urllib.error.HTTPError as error:
            away = error.code in (429, 500, 502, 503, 504)
            raise (AwayError if away else RemoteError)(_told(error)) from None
        except urllib.error.URLError as error:
            raise AwayError(f"{self._url} cannot be reached: {error.reason}") from None
        except http.client.HTTPException as error:
            raise AwayError(f"{self._url} gives no answer of HTTP: {error}") from None


def _told(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (KeyError, TypeError, ValueError):
        return f"{error.code} {error.reason}"
