"""Packet trailers (protocol 17): what a client hangs behind the last packet of a picture, as a user's timestamp.

    +----------------+-----------------------+-----------------+
    | elements       | length XOR 0xFF, 1 B  | "LKTS"          |
    +----------------+-----------------------+-----------------+

The length is of all three. Who did not say that it knows them (CAP_PACKET_TRAILER) gets the packet without.
"""

from __future__ import annotations

MAGIC = b"LKTS"
LEAST = len(MAGIC) + 1


def trailer_size(payload: memoryview | bytes) -> int:
    """Octets of the trailer at the end of a payload, of a packet with the marker; 0 if there is none."""
    size = len(payload)
    if size < LEAST or payload[-len(MAGIC) :] != MAGIC:
        return 0
    length = payload[-LEAST] ^ 0xFF
    return length if LEAST <= length <= size else 0
