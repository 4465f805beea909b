"""Which interface an address belongs to, so that ranks talk over the one they can be reached on."""

from __future__ import annotations

import os
import socket
import struct
import sys

from twofold.errors import InputError

_SIOCGIFADDR = 0x8915


def interface_of(address: str) -> str | None:
    """The interface that has this IPv4 address (Linux), or None where it cannot be told."""
    if sys.platform != "linux":
        return None
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


def rank_network(interface: str | None) -> dict[str, str]:
    """The variables that tie gloo and NCCL to an interface; what the user set wins."""
    if interface is None:
        return {}
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    return {name: os.environ.get(name, interface) for name in names}


def parse_address(text: str) -> tuple[str, int]:
    """`10.0.0.1:29400` or `head.example:29400` as an IPv4 address and a port."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputError(
            f"'{text}' is not ADDRESS:PORT",
            at="--head",
            help="for example --head 10.0.0.1:29400: an address of host 0, and a free port",
        )
    try:
        return socket.gethostbyname(host), int(port)
    except OSError as error:
        raise InputError(
            f"'{host}' has no address: {error.strerror}",
            at="--head",
            help="use the IP address of the first machine",
        ) from error
