"""The body of transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01, 3.1).

Deltas are in 250 us, the reference time in 64 ms (24 bits, signed). A symbol is 0 (lost), 1 (small delta, 0..255) or
2 (large delta, signed 16 bits).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from lkactor.errors import ProtocolViolation

TICK = 0.00025
REFERENCE_TICKS = 256
MAX_STATUSES = 65535
MAX_RUN = 8191
Arrivals = tuple[tuple[int, float | None], ...]


def encode(feedback_count: int, arrivals: Sequence[tuple[int, float | None]]) -> bytes:
    """`arrivals` has every sequence from the first to the last; at least one arrived. Times are seconds."""
    first_time = next(at for _, at in arrivals if at is not None)
    reference = int(first_time / TICK) // REFERENCE_TICKS
    last = reference * REFERENCE_TICKS
    symbols, deltas = bytearray(), bytearray()
    for _, at in arrivals:
        if at is None:
            symbols.append(0)
            continue
        delta = int(at / TICK) - last
        if 0 <= delta <= 255:
            symbols.append(1)
            deltas.append(delta)
        else:
            delta = max(-32768, min(32767, delta))
            symbols.append(2)
            deltas += delta.to_bytes(2, "big", signed=True)
        last += delta
    head = struct.pack(">HH", arrivals[0][0] & 0xFFFF, len(arrivals))
    head += (reference & 0xFFFFFF).to_bytes(3, "big") + bytes((feedback_count & 255,))
    return head + _encode_symbols(bytes(symbols)) + deltas


def _encode_symbols(symbols: bytes) -> bytes:
    """Run lengths where they pay, else vectors of seven two-bit symbols."""
    chunks, at = [], 0
    while at < len(symbols):
        rest = symbols[at : at + MAX_RUN]
        run = len(rest) - len(rest.lstrip(rest[:1]))
        if run >= 7 or at + run == len(symbols):
            chunks.append((symbols[at] << 13) | run)
            at += run
            continue
        word = 0xC000
        for index, symbol in enumerate(symbols[at : at + 7]):
            word |= symbol << (12 - 2 * index)
        chunks.append(word)
        at += 7
    return struct.pack(f">{len(chunks)}H", *chunks)


def decode(body: bytes) -> tuple[int, Arrivals]:
    """(feedback count, arrivals). Raises ProtocolViolation("rtcp.twcc")."""
    if len(body) < 8:
        raise ProtocolViolation("rtcp.twcc")
    base, count = struct.unpack_from(">HH", body)
    reference = int.from_bytes(body[4:7], "big", signed=True)
    symbols, at = _decode_symbols(body, count)
    ticks = reference * REFERENCE_TICKS
    arrivals: list[tuple[int, float | None]] = []
    for index, symbol in enumerate(symbols):
        sequence = (base + index) & 0xFFFF
        if symbol == 0 or symbol == 3:
            arrivals.append((sequence, None))
            continue
        if at + symbol > len(body):
            raise ProtocolViolation("rtcp.twcc")
        ticks += body[at] if symbol == 1 else int.from_bytes(body[at : at + 2], "big", signed=True)
        at += symbol
        arrivals.append((sequence, ticks * TICK))
    return body[7], tuple(arrivals)


def _decode_symbols(body: bytes, count: int) -> tuple[list[int], int]:
    symbols: list[int] = []
    at = 8
    while len(symbols) < count:
        if at + 2 > len(body):
            raise ProtocolViolation("rtcp.twcc")
        word = (body[at] << 8) | body[at + 1]
        at += 2
        if word < 0x8000:
            symbols.extend([word >> 13] * min(word & 0x1FFF, count - len(symbols)))
            if not word & 0x1FFF:
                raise ProtocolViolation("rtcp.twcc")
        elif word & 0x4000:
            symbols.extend((word >> shift) & 3 for shift in range(12, -1, -2))
        else:
            symbols.extend((word >> shift) & 1 for shift in range(13, -1, -1))
    del symbols[count:]
    return symbols, at
