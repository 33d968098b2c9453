"""What both programs that forward and do nothing else begin with, and who loads them."""

from __future__ import annotations

import socket

from lkactor.srtp import SrtpKeys, SrtpProfile

HOST = "127.0.0.1"
BUFFER = 16 * 1024 * 1024
IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2
"""linux/in.h; as the server's sockets: packets that are never fragmented cost less."""


def listening(port: int) -> socket.socket:
    """The socket that everybody sends to."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
    sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
    sock.bind((HOST, port))
    return sock


def keys(number: int) -> SrtpKeys:
    """Of a leg; 0: of everybody who sends, too."""
    key, salt = number.to_bytes(16, "big"), bytes(12)
    return SrtpKeys(SrtpProfile.AEAD_AES_128_GCM, key, salt, key, salt)
