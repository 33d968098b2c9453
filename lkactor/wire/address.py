"""Where a datagram came from or goes to: the key of a path."""

from typing import Literal, NamedTuple


class Address(NamedTuple):
    """A transport address of the peer. A TCP address stands for one framed connection (RFC 4571).

    `local` tells paths from several sockets of ours to the same peer address apart: 0 is the session's own socket.
    """

    transport: Literal["udp", "tcp"]
    ip: str
    port: int
    local: int = 0
