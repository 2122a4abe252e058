"""Connections between processes: strangers neither take a place nor hold anybody up."""

import contextlib
import socket
import threading
import time

import pytest

from flaxrnn.runtime import peers
from flaxrnn.runtime.watch import Watch

TOKEN = bytes(range(peers.TOKEN_BYTES))


def hello(index, token=TOKEN, count=3, run="this"):
    return peers.Introduction(token, index, count, run)


@pytest.fixture
def reception():
    """Process 0, which waits for processes 1 and 2; and its port."""
    server = peers.listen("localhost")
    waiting = peers.Reception(server, hello(0))
    yield waiting, server.getsockname()[1]
    waiting.close()
    for connection in waiting._joined.values():
        connection.close()


def join(port, *said, **more):
    return peers.connect("localhost", port, hello(*said, **more), 5.0)


def test_strangers_are_disconnected_and_delay_nobody(reception):
    waiting, port = reception
    began = time.monotonic()
    silent = [socket.create_connection(("localhost", port)) for _ in range(20)]
    talking = socket.create_connection(("localhost", port))
    talking.sendall(b"GET / HTTP/1.1\r\nHost: someone-who-is-lost.example\r\n\r\n" + bytes(64))
    short = socket.create_connection(("localhost", port))
    short.sendall(TOKEN)
    short.shutdown(socket.SHUT_WR)
    with pytest.raises(TimeoutError, match="process 0 at localhost:"):
        peers.connect("localhost", port, hello(1, bytes(peers.TOKEN_BYTES)), 0.5)
    one, two = join(port, 1), join(port, 2)
    connections = waiting.wait(5.0)
    assert time.monotonic() - began < 5
    assert connections.keys() == {1, 2}
    for stranger in (talking, short):
        stranger.settimeout(5)
        with contextlib.suppress(ConnectionError):  # what it had sent was not read
            assert stranger.recv(1) == b""
    for mine, index in ((one, 1), (two, 2)):
        peers.send(connections[index], {"port": index})
        assert peers.receive(mine, 5.0) == {"port": index}
    for connection in (*silent, talking, short, one, two):
        connection.close()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"index": 1}, "--process_id: 1 is taken"),
        ({"index": 0}, "--process_id: 0 must be from 1 to 2"),
        ({"index": 3}, "--process_id: 3 must be from 1 to 2"),
        ({"index": 2, "count": 4}, "--num_processes: 4 must be 3"),
        ({"index": 2, "run": "another"}, "--config: process 0 and process 2 have different"),
    ],
)
def test_who_cannot_join_is_told_why(said, message, reception):
    waiting, port = reception
    with join(port, 1), pytest.raises(peers.RefusedError, match=message):
        join(port, **said)
    with pytest.raises(TimeoutError, match="process 2"):
        waiting.wait(0.1)


def test_a_process_that_was_lost_may_join_again_but_not_a_late_one(reception):
    waiting, port = reception
    join(port, 1).close()
    while 1 not in waiting._joined:  # until its greeting has been read
        time.sleep(0.01)
    lost = waiting._joined[1]
    with lost, join(port, 1) as one, join(port, 2) as two:
        connections = waiting.wait(5.0)
        peers.send(connections[1], {"to": "the second"})
        assert peers.receive(one, 5.0) == {"to": "the second"}
        two.close()  # it is lost, but the run has begun
        with pytest.raises(peers.RefusedError, match="is taken"):
            join(port, 2)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"[" * 400 + b"\n", b""])
def test_another_program_on_the_port_is_not_process_0(answer):
    with socket.create_server(("localhost", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(answer)
                        connection.recv(1000)

        threading.Thread(target=serve, daemon=True).start()
        port = server.getsockname()[1]
        with pytest.raises(TimeoutError, match=rf"process 0 at localhost:{port} \(another program"):
            peers.connect("localhost", port, hello(1), 1.0)
        server.shutdown(socket.SHUT_RDWR)


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


def watch_each_other():
    """The watches of process 0 and of processes 1 and 2, what they report, and their sockets."""
    pairs = {index: socket.socketpair() for index in (1, 2)}
    lost = {index: [] for index in range(3)}
    watches = [Watch({index: pair[0] for index, pair in pairs.items()}, lost[0].append)]
    watches += [Watch({0: pair[1]}, lost[index].append) for index, pair in pairs.items()]
    return watches, lost, pairs


def until(condition):
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def test_processes_that_finish_wait_for_each_other():
    watches, lost, _ = watch_each_other()
    finishing = [threading.Thread(target=watch.finish) for watch in watches]
    for thread in finishing[:2]:
        thread.start()
    time.sleep(0.2)
    assert all(thread.is_alive() for thread in finishing[:2])
    finishing[2].start()
    for thread in finishing:
        thread.join(5)
        assert not thread.is_alive()
    time.sleep(0.1)
    assert not any(lost.values())


def test_a_process_that_ends_or_falls_silent_is_lost(monkeypatch):
    watches, lost, pairs = watch_each_other()
    threading.Thread(target=watches[1].finish, daemon=True).start()  # it waits for the others
    pairs[2][1].shutdown(socket.SHUT_RDWR)
    until(lambda: lost[0] == lost[2] == ["was lost"])
    assert not lost[1]  # until process 0 ends

    monkeypatch.setattr("flaxrnn.runtime.watch.SILENT_SECONDS", 1.0)
    monkeypatch.setattr("flaxrnn.runtime.watch.BEAT_SECONDS", 0.2)
    watches, lost, pairs = watch_each_other()
    time.sleep(1.5)
    assert not any(lost.values())
    monkeypatch.setattr(watches[2], "_say", lambda message: None)  # as if it were stopped
    until(lambda: lost[0] == ["has been silent for 1 s"])
    assert not lost[1]
