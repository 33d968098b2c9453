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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from limit.common import HOST, keys, listening

from actors.sending import sender_for
from lkactor.srtp import PacketBuffer, SlotArray, SrtpReceiver, SrtpSender

HEADER, TAG, MAX_DATAGRAM, SLOT = 24, 16, 2048, 1664
_head = struct.Struct("!HHIIHHII").pack
"""RTP header and header extension, HEADER octets."""


class Least:
    """The legs, and who sends to them."""

    def __init__(self, port: int, legs: list[int]) -> None:
        self.sock = listening(port)
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


if __name__ == "__main__":
    least = Least(int(sys.argv[1]), [int(argument) for argument in sys.argv[3:]])
    gc.freeze()
    gc.disable()
    print("ready", flush=True)
    least.run()
