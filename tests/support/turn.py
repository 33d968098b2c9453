"""A server with a TURN server of its own, on loopback."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.certificates import certificate, free_port

from lkactor.testing import LkServer


@contextmanager
def turn_server(directory: Path, *, udp: bool = True, tls: bool = True, **rtc: Any) -> Iterator[LkServer]:
    """TURN on free ports over UDP, over TLS (certificate for localhost), or both; `rtc` is of the configuration."""
    turn: dict[str, Any] = {
        "enabled": True, "bind_addresses": ["127.0.0.1"], "allow_restricted_peer_cidrs": ["127.0.0.0/8"], "udp_port": 0,
        # apart from the ports that the kernel gives to clients
        "relay_range_start": 20000, "relay_range_end": 30000,
    }  # fmt: skip
    if udp:
        turn["udp_port"] = free_port(socket.SOCK_DGRAM)
    if tls:
        cert, key = certificate(directory, "localhost")
        turn |= {"tls_port": free_port(), "domain": "localhost", "cert_file": str(cert), "key_file": str(key)}
    with LkServer(json.dumps({"turn": turn, "rtc": rtc})) as server:
        try:
            yield server
        finally:
            print(*server.events(), sep="\n")  # pytest shows it when the test has failed
