"""Messages between machines over a network that takes them slowly."""

import socket
from collections.abc import Iterator

import pytest

from twofold.launch.wire import Connection, Message


@pytest.fixture
def peers() -> Iterator[tuple[Connection, Connection]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        with near, far:
            yield Connection(near), Connection(far)


def test_a_message_larger_than_the_network_takes_at_once_arrives_whole(
    peers: tuple[Connection, Connection],
) -> None:
    near, far = peers
    received: list[Message] = []
    near.send(kind="start", order="x" * 900_000)
    for _ in range(100_000):
        received += far.receive()
        near.beat()
        if received or near.closed:
            break
    assert not near.closed
    assert [len(message["order"]) for message in received] == [900_000]


def test_who_never_listens_is_gone(peers: tuple[Connection, Connection]) -> None:
    near, _ = peers
    for _ in range(200):
        near.send(kind="start", order="x" * 100_000)
    assert near.closed
