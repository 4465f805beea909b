"""What machines of a run say to each other: JSON objects, one a line, over TCP, with a secret.

Both sides prove that they hold the run folder's token before anything else is listened to. The
token lies in the run folder, readable by its owner alone; so a machine that can take part also
sees the folder, as its checkpoints need.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any

from twofold.errors import EnvironmentLack

Message = dict[str, Any]
_MAX_BYTES = 1 << 20
BEAT_S = 1.0


class Connection:
    """A peer. `closed` once it is gone. What its network does not take at once goes later; who
    lets a megabyte pile up is gone."""

    def __init__(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = peer
        self.closed = False
        self._heard_at = self._said_at = time.monotonic()
        self._rest = b""
        self._unsent = b""

    def send(self, **message: Any) -> None:
        self._unsent += json.dumps(message).encode() + b"\n"
        self._said_at = time.monotonic()
        self._send_on()

    def _send_on(self) -> None:
        """As much of what is to be said as goes without waiting."""
        try:
            while self._unsent and not self.closed:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except BlockingIOError:
            if len(self._unsent) > _MAX_BYTES:
                self.close()
        except OSError:
            self.close()

    def beat(self) -> None:
        """Say that we live, where nothing else was said for a second."""
        self._send_on()
        if not self.closed and time.monotonic() - self._said_at > BEAT_S:
            self.send(kind="beat")

    def silence_s(self) -> float:
        return time.monotonic() - self._heard_at

    def receive(self) -> list[Message]:
        """The whole messages that have come, without waiting. Beats are not among them."""
        while not self.closed:
            try:
                content = self.socket.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                content = b""
            if not content:
                self.close()
                break
            self._heard_at = time.monotonic()
            self._rest += content
            if len(self._rest) > _MAX_BYTES:
                self.close()
        *lines, self._rest = self._rest.split(b"\n")
        return [message for line in lines if (message := _parse(line)) is not None]

    def close(self) -> None:
        self.closed = True
        self.socket.close()


def make_token(folder: Path) -> str:
    """A fresh secret for the run, in a file that its owner alone can read."""
    path, token = folder / ".token", secrets.token_hex(32)
    try:
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(token)
    except OSError as error:
        raise EnvironmentLack(
            f"the token of the run cannot be written: {error.strerror}",
            at=str(path),
            help="check free space and permission",
        ) from error
    return token


def read_token(folder: Path) -> str:
    """The run's secret, where this machine sees the run folder and we own it."""
    path = folder / ".token"
    try:
        status = path.stat()
        token = path.read_text(encoding="utf-8")
    except OSError as error:
        raise EnvironmentLack(
            f"this machine does not see the run folder of the head: {error.strerror}",
            at=str(path),
            help="checkpoints need a filesystem that all machines share, at the same path: "
            "name a folder on it with --runs",
        ) from error
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise EnvironmentLack(
            "the token of the run is not ours alone",
            at=str(path),
            help="start every machine as the same user, and give the file mode 600",
        )
    return token


def proof(token: str, who: str, nonce: str) -> str:
    """What only a holder of the token can say to this nonce."""
    return hmac.new(token.encode(), f"{who}:{nonce}".encode(), hashlib.sha256).hexdigest()


def proves(said: object, token: str, who: str, nonce: str) -> bool:
    expected = proof(token, who, nonce).encode()
    return isinstance(said, str) and hmac.compare_digest(said.encode(), expected)


def _parse(line: bytes) -> Message | None:
    try:
        message = json.loads(line)
    except ValueError:
        return None
    if not isinstance(message, dict) or message.get("kind") == "beat":
        return None
    return message
