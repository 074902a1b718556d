"""What a terminal says to a deployment and to S3, and what it makes of their answers."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from handler.batches.remote import AwayError, Remote, RemoteError
from tests.batches.works import line
from tests.stack.server import PlainServer


class Misled(Remote):
    """A deployment that signs with a key that S3 does not know."""

    def call(self, *asked: Any) -> dict[str, Any]:
        found = super().call(*asked)
        found["upload"]["url"] = re.sub("Credential=[A-Za-z0-9]+", "Credential=none", found["upload"]["url"])
        return found


def test_why_s3_does_not_take_a_file_is_said_in_its_own_words(
    jobs_plain: PlainServer, key: str, tmp_path: Path
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(line("1"))
    with pytest.raises(RemoteError, match="403 InvalidAccessKeyId: The AWS Access Key Id"):
        Misled(f"{jobs_plain.url}/v1", key).upload(source, lambda *_: None)


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], str]]:
    """The address of a server that gives an answer and goes."""
    with ExitStack() as servers:

        def serve(answer: bytes) -> str:
            listening = servers.enter_context(socket.create_server(("127.0.0.1", 0)))

            def once() -> None:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(answer)

            thread = threading.Thread(target=once)
            thread.start()
            servers.callback(thread.join)
            return f"http://127.0.0.1:{listening.getsockname()[1]}/v1"

        yield serve


@pytest.mark.parametrize(
    "half",
    [b"content-length: 10\r\n\r\nhalf\n", b"transfer-encoding: chunked\r\n\r\n5\r\nhalf\n\r\n"],
    ids=["length", "chunks"],
)
def test_half_of_a_result_is_none(answering: Callable[[bytes], str], tmp_path: Path, half: bytes) -> None:
    to = tmp_path / "out.jsonl"
    to.write_text("before")
    with pytest.raises(AwayError, match="in the middle of an answer"):
        Remote(answering(b"HTTP/1.1 200 OK\r\n" + half), "none").download("file-1", to)
    assert to.read_text() == "before"


def test_what_is_no_deployment_is_said_to_be_none(answering: Callable[[bytes], str]) -> None:
    page = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>")
    with pytest.raises(RemoteError, match=f"{page} answers with what is no JSON"):
        Remote(page, "none").call("GET", "/batches")
    with pytest.raises(RemoteError, match="gives no answer of HTTP: SSH"):
        Remote(answering(b"SSH-2.0\r\n"), "none").call("GET", "/batches")
