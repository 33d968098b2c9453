"""Many datagrams by one system call: `sendmmsg(2)` through ctypes, on structures that are filled once per set of legs.

Written for Linux on machines of 64 bits; elsewhere, and where the system has no such call, `sender_for` says None and
datagrams leave one by one (`actors.net.UdpPath`).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import socket
import struct
import sys
from collections.abc import Callable, Sequence

UDP_SEGMENT = 103
"""linux/udp.h; the standard library has no name for it before 3.12."""
CANNOT_SEGMENT = (errno.EIO, errno.EINVAL, errno.ENOPROTOOPT)
"""No checksum offload on this route, or an odd kernel."""
BUFFER_FULL = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS)
MESSAGE = struct.Struct("=QI4xQQQQi4xI4x")
"""`struct mmsghdr`: name, its size, iovec, their count, control, its size, flags; octets sent."""
_MESSAGE_SIZE = MESSAGE.size
_NOW = int(socket.MSG_DONTWAIT)
IOVEC_SIZE = 16
CONTROL = struct.Struct("=QiiH6x")
"""`struct cmsghdr` with the size of the segments: length, level, type, value."""
_CONTROL_LENGTH = 18
"""CMSG_LEN of it."""
_ADDRESS_ROOM = 28

SendMany = Callable[[int, int, int, int], int]
"""(descriptor, address of messages, how many, flags): how many went, or -1, and `ctypes.get_errno` says why."""


def _find() -> SendMany | None:
    """The C library's function; None where it does not fit. It keeps the interpreter: with MSG_DONTWAIT it never waits,
    and whoever gives the interpreter away may have to wait to get it back."""
    if not sys.platform.startswith("linux") or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    function = getattr(ctypes.PyDLL(None, use_errno=True), "sendmmsg", None)
    if function is None:
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
    found: SendMany = function
    return found


_sendmmsg = _find()


@functools.lru_cache(maxsize=256)
def _memory(size: int) -> type[ctypes.Array[ctypes.c_char]]:
    """Every size is a type of its own, and a type that nobody keeps is a cycle for the garbage collector."""
    return ctypes.c_char * size


class Messages:
    """Made ready for some addresses and runs of one length; the memory that the structures point to."""

    __slots__ = ("address", "control", "headers", "names", "run")

    def __init__(self, addresses: Sequence[bytes], parts: int, run: int) -> None:
        count = len(addresses)
        self.run = run
        self.names = _memory(_ADDRESS_ROOM * max(1, count))()
        self.headers = _memory(_MESSAGE_SIZE * max(1, count))()
        self.control = _memory(CONTROL.size)()
        CONTROL.pack_into(self.control, 0, _CONTROL_LENGTH, socket.SOL_UDP, UDP_SEGMENT, 0)
        self.address, names = ctypes.addressof(self.headers), ctypes.addressof(self.names)
        control = (ctypes.addressof(self.control), CONTROL.size) if run > 1 else (0, 0)
        for index, name in enumerate(addresses):
            at = _ADDRESS_ROOM * index
            ctypes.memmove(names + at, name, len(name))
            where = (names + at, len(name)) if name else (0, 0)
            iovec = parts + IOVEC_SIZE * run * index
            MESSAGE.pack_into(self.headers, _MESSAGE_SIZE * index, *where, iovec, run, *control, 0, 0)

    def set_segment(self, size: int) -> None:
        CONTROL.pack_into(self.control, 0, _CONTROL_LENGTH, socket.SOL_UDP, UDP_SEGMENT, size)


class ManySender:
    """Implements `lkactor.plane.inline.Sender` for one UDP socket. What does not fit now is media, and dropped."""

    def __init__(self, fd: int, call: SendMany, allow_fragments: Callable[[], bool]) -> None:
        """`allow_fragments`: some packet is too long for its route (EMSGSIZE). False: they are allowed already."""
        self._fd, self._call, self._allow_fragments = fd, call, allow_fragments
        self.packets = self.bytes = self.buffer_full = self.errors = 0
        self.gso = True

    def prepare(self, addresses: Sequence[bytes], parts: int, run: int) -> Messages:
        return Messages(addresses, parts, run)

    def send(self, messages: Messages, first: int, count: int, sizes: Sequence[int]) -> None:
        run, octets = len(sizes), sum(sizes)
        if run > 1:
            messages.set_segment(sizes[0])
        done, end = first, first + count
        while done < end:
            sent = self._call(self._fd, messages.address + _MESSAGE_SIZE * done, end - done, _NOW)
            if sent > 0:
                self.packets += sent * run
                self.bytes += sent * octets
                done += sent
                continue
            reason = ctypes.get_errno() if sent < 0 else 0
            if reason == errno.EINTR:
                continue
            if run > 1 and reason in CANNOT_SEGMENT:
                self.gso = False
            if reason == errno.EMSGSIZE or (run > 1 and not self.gso):
                self._send_singly(messages, done, sizes)
            else:
                self.count(reason, run)
            done += 1

    def _send_singly(self, messages: Messages, index: int, sizes: Sequence[int]) -> None:
        """One by one: a message that did not go, or on a route that cannot segment."""
        at = _MESSAGE_SIZE * index
        name, name_size, iovec, *_ = MESSAGE.unpack_from(messages.headers, at)
        for place, size in enumerate(sizes):
            one = _memory(_MESSAGE_SIZE)()
            MESSAGE.pack_into(one, 0, name, name_size, iovec + IOVEC_SIZE * place, 1, 0, 0, 0, 0)
            sent = self._call(self._fd, ctypes.addressof(one), 1, _NOW)
            if sent <= 0 and ctypes.get_errno() == errno.EMSGSIZE and self._allow_fragments():
                sent = self._call(self._fd, ctypes.addressof(one), 1, _NOW)
            if sent > 0:
                self.packets += 1
                self.bytes += size
            else:
                self.count(ctypes.get_errno(), 1)

    def count(self, reason: int, datagrams: int) -> None:
        if reason in BUFFER_FULL:
            self.buffer_full += datagrams
        else:
            self.errors += datagrams


def sender_for(
    fd: int, allow_fragments: Callable[[], bool] = bool, call: SendMany | None = _sendmmsg
) -> ManySender | None:
    """None: this system cannot do it, which it is asked by sending nothing."""
    if call is None or call(fd, 0, 0, _NOW) != 0:
        return None
    return ManySender(fd, call, allow_fragments)
