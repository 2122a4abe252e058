"""Connections between processes: strangers neither take a place nor hold anybody up."""

import contextlib
import socket
import threading
import time

import pytest

from flaxrnn.runtime import peers

TOKEN = bytes(range(peers.TOKEN_BYTES))


@pytest.fixture
def accepting():
    """Starts a server that waits for processes 1 and 2, and returns its port and its result."""
    servers = []

    def start(seconds=20.0):
        server = peers.listen("localhost")
        servers.append(server)
        result = []

        def accept():
            try:
                result.append(peers.accept(server, TOKEN, {1, 2}, seconds))
            except TimeoutError as error:
                result.append(error)

        thread = threading.Thread(target=accept)
        thread.start()
        return server.getsockname()[1], thread, result

    yield start
    for server in servers:
        server.close()


def join(port, index, token=TOKEN):
    return peers.connect("localhost", port, token, index, 5.0)


def test_strangers_are_disconnected_and_delay_nobody(accepting):
    port, thread, result = accepting()
    began = time.monotonic()
    silent = [socket.create_connection(("localhost", port)) for _ in range(20)]
    talking = socket.create_connection(("localhost", port))
    talking.sendall(b"GET / HTTP/1.1\r\nHost: someone-who-is-lost.example\r\n\r\n")
    forged = join(port, 1, bytes(peers.TOKEN_BYTES))
    unknown = join(port, 7)
    short = socket.create_connection(("localhost", port))
    short.sendall(TOKEN)
    short.shutdown(socket.SHUT_WR)
    one = join(port, 1)
    again = join(port, 1)  # a late duplicate
    two = join(port, 2)
    thread.join(10)
    assert time.monotonic() - began < 5
    (connections,) = result
    assert len(connections) == 2
    for stranger in (talking, forged, unknown, short, again):
        stranger.settimeout(5)
        with contextlib.suppress(ConnectionError):  # what it had sent was not read
            assert stranger.recv(1) == b""
    for mine, theirs in zip((one, two), connections, strict=True):
        theirs.sendall(b".")
        assert mine.recv(1) == b"."
    with pytest.raises(ConnectionError):  # nobody can join later
        join(port, 1).recv(1)
    for connection in (*silent, *connections, talking, forged, unknown, short, one, again, two):
        connection.close()


def test_a_process_that_never_comes_is_named(accepting):
    port, thread, result = accepting(0.5)
    one = join(port, 1)
    thread.join(10)
    one.close()
    (error,) = result
    assert isinstance(error, TimeoutError)
    assert str(error) == "process 2 did not connect in 0 s"


def test_only_the_interface_of_the_coordinator_listens(monkeypatch):
    for host, expected in [("localhost", "127.0.0.1"), ("127.0.0.1", "127.0.0.1")]:
        with peers.listen(host) as server:
            assert server.getsockname()[0] == expected
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "127.0.1.1")
    for host in (None, "this-machine"):  # which the others know by another address
        with peers.listen(host) as server:
            assert server.getsockname()[0] == "0.0.0.0"
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "203.0.113.1")  # not an address of it
    with peers.listen("translated") as server:
        assert server.getsockname()[0] == "0.0.0.0"
