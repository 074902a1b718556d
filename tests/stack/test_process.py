"""The ports that the tests' servers get."""

import socket

import pytest

from tests.stack.process import free_port


def test_a_port_is_its_servers_before_it_listens_and_after_it_has_ended() -> None:
    port = free_port()
    for _ in range(2):
        with socket.socket() as other, pytest.raises(OSError, match="already in use"):
            other.bind(("127.0.0.1", port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with socket.create_server(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
            pass
