"""Arrivals by the kernel's clock."""

from __future__ import annotations

import socket
import struct
import sys
import time

import pytest

from lkactor.client.arrival import CONTROL, SO_TIMESTAMPNS, stamp_arrivals, waited


def stamp(at: float) -> tuple[int, int, bytes]:
    return socket.SOL_SOCKET, SO_TIMESTAMPNS, struct.pack("@ll", int(at), int(at % 1 * 1e9))


def test_what_is_known() -> None:
    assert waited([stamp(1000.25)], 1000.5) == pytest.approx(0.25)
    assert waited([(socket.SOL_SOCKET, 29, b"\0" * 16), stamp(1.0)], 1.5) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "control",
    [[], [stamp(1000.0)], [stamp(1.0)], [(socket.SOL_SOCKET, SO_TIMESTAMPNS, b"short")], [(0, SO_TIMESTAMPNS, b"")]],
    ids=["nothing", "the future", "long ago", "cut", "of another level"],
)
def test_what_is_not(control: list[tuple[int, int, bytes]]) -> None:
    assert waited(control, 999.0) == 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="SO_TIMESTAMPNS is Linux's")
def test_a_datagram_has_the_time_at_which_it_came() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs,
    ):
        stamp_arrivals(ours)
        ours.bind(("127.0.0.1", 0))
        before = time.time()
        theirs.sendto(b"media", ours.getsockname())
        data, control, _, _ = ours.recvmsg(100, CONTROL)
        after = time.time()
        assert data == b"media"
        assert 0.0 < waited(control, after) <= after - before
        assert waited(control, after + 3.0) >= 3.0
