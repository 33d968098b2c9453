"""The least that forwards in Python, as a process: `least.py PORT GSO LEG_PORT...`, until it is killed.

What `limit.c` does, by what the Python plane does it with: libsrtp through cffi, one `sendmmsg` through ctypes. Header
and payload are one join of octets; nothing is decided, counted or kept, and no other thread wants the interpreter.
Packets leave one by one: GSO is not for it.
"""

from __future__ import annotations

import gc
import select
import socket
import struct
import sys

from actors.sending import sender_for
from lkactor.srtp import PacketBuffer, SlotArray, SrtpKeys, SrtpProfile, SrtpReceiver, SrtpSender

HEADER, TAG, MAX_DATAGRAM, SLOT = 24, 16, 2048, 1664
BUFFER = 16 * 1024 * 1024
IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2
"""linux/in.h; as the server's sockets."""
HOST = "127.0.0.1"
_head = struct.Struct("!HHIIHHII").pack
"""RTP header and header extension, HEADER octets."""


class Least:
    """The legs, and who sends to them."""

    def __init__(self, port: int, legs: list[int]) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self.sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        self.sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        self.sock.bind((HOST, port))
        self.sock.setblocking(False)
        sender = sender_for(self.sock.fileno())
        if sender is None:
            raise RuntimeError("this system has no sendmmsg")
        self.sender, self._sessions = sender, [SrtpSender(keys(number)) for number in range(len(legs))]
        self.slots = SlotArray(max(1, len(legs)), SLOT)
        self.publishers = SrtpReceiver(keys(0))
        everybody = list(range(len(legs)))
        self._all = self._to(legs, everybody)
        self._others = {
            own: self._to(legs, [leg for leg in everybody if leg != number]) for number, own in enumerate(legs)
        }

    def _to(self, ports: list[int], legs: list[int]) -> tuple[list[tuple[int, int]], list[object], object]:
        """Where their packets lie, with their SSRCs; what protects them; messages to them."""
        places = [(SLOT * place, 1000 + leg) for place, leg in enumerate(legs)]
        names = [
            struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", ports[leg], socket.inet_aton(HOST))
            for leg in legs
        ]
        return places, [self._sessions[leg].context for leg in legs], self.sender.prepare(names, self.slots.parts, 1)

    def run(self) -> None:
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        buffer, slots, sender, receive = PacketBuffer(1, MAX_DATAGRAM), self.slots, self.sender, self.sock.recvfrom_into
        view, out, lengths, unprotect = buffer.view, slots.view, slots.lengths, self.publishers.unprotect_rtp_in
        sequence = 0
        while True:
            poll.poll()
            size, (_, port) = receive(view)
            data = unprotect(buffer, size)
            body, end = data[HEADER:], size - TAG
            places, contexts, messages = self._others.get(port, self._all)
            sequence = (sequence + 1) & 0xFFFF
            for index, (at, ssrc) in enumerate(places):
                out[at : at + end] = _head(0x9060, sequence, 0, ssrc, 0xBEDE, 1, 0, 0) + body
                lengths[index] = end
            slots.protect(contexts)
            sender.send(messages, 0, len(places), (end + TAG,))


def keys(number: int) -> SrtpKeys:
    """Of a leg; 0: of everybody who sends here, too."""
    key, salt = number.to_bytes(16, "big"), bytes(12)
    return SrtpKeys(SrtpProfile.AEAD_AES_128_GCM, key, salt, key, salt)


if __name__ == "__main__":
    least = Least(int(sys.argv[1]), [int(argument) for argument in sys.argv[3:]])
    gc.freeze()
    gc.disable()
    print("ready", flush=True)
    least.run()
