"""Opus in Ogg (RFC 3533, RFC 7845): pages with a CRC, packets by lacing, time by the packets' own durations.

    "OggS" | 0 | flags 1 | granule 8 | serial 4 | page 4 | crc 4 | segments 1 | lacing values | data

The first packet is OpusHead, the second OpusTags. A lacing value of 255 says that the packet goes on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial

from lkactor.errors import ProtocolViolation
from lkactor.media.frame import Buffer, Frame, MediaFile

PAGE = struct.Struct("<4sBBqIIIB")
HEAD = struct.Struct("<8sBBHIhB")
CONTINUED, FIRST, LAST = 1, 2, 4
RATE = 48000
MAX_PACKET = 61440
"""1275 bytes x 48 frames (RFC 6716 section 3.4); header packets may not be longer here either."""
PRE_SKIP = 312
PACKETS_PER_PAGE = 50


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
        table.append(value)
    return tuple(table)


_TABLE = _crc_table()


def crc(data: Buffer) -> int:
    """RFC 3533 section 6: polynomial 0x04c11db7, not reflected, zero before and after."""
    value = 0
    table = _TABLE
    for byte in data:
        value = (value << 8 & 0xFFFFFFFF) ^ table[value >> 24 ^ byte]
    return value


def packet_samples(packet: Buffer) -> int:
    """How long an Opus packet lasts, at 48 kHz (RFC 6716 section 3.1); 0 of one that is none."""
    if not packet:
        return 0
    config, code = packet[0] >> 3, packet[0] & 3
    if config < 12:
        samples = (480, 960, 1920, 2880)[config & 3]
    elif config < 16:
        samples = (480, 960)[config & 1]
    else:
        samples = (120, 240, 480, 960)[config & 3]
    count = (1, 2, 2, packet[1] & 63 if len(packet) > 1 else 0)[code]
    total = samples * count
    return total if total <= 5760 else 0  # more than 120 ms is malformed


def read_ogg(data: Buffer) -> MediaFile:
    """Raises ProtocolViolation("ogg...."); so does the iteration, where the file is damaged."""
    packets = _packets(data)
    head = next(packets, None)
    if head is None or len(head) < HEAD.size or head[:8] != b"OpusHead":
        raise ProtocolViolation("ogg.codec", "the first packet is no OpusHead: only Opus is read")
    version, channels = head[8], head[9]
    if version >> 4 or not channels:
        raise ProtocolViolation("ogg.opus_head", f"version {version}, {channels} channels")
    return MediaFile("audio/opus", partial(_frames, data), channels=channels, frame_time=0.02)


def _frames(data: Buffer) -> Iterator[Frame]:
    samples = 0
    for number, packet in enumerate(_packets(data)):
        if number < 2:  # OpusHead, OpusTags
            continue
        length = packet_samples(packet)
        if length:
            yield Frame(packet, samples / RATE, True)
            samples += length


def _packets(data: Buffer) -> Iterator[bytes]:
    """Of the first logical stream; pages of others are passed over. Raises ProtocolViolation."""
    at, stream = 0, None
    partial_packet = b""
    while at < len(data):
        flags, serial, lacing, body = _page(data, at)
        at = body + sum(lacing)
        stream = serial if stream is None else stream
        if serial != stream:
            continue
        skip = False
        if not flags & CONTINUED:
            partial_packet = b""
        elif not partial_packet:
            skip = True  # the beginning of this packet was never seen
        for length in lacing:
            if len(partial_packet) + length > MAX_PACKET:
                raise ProtocolViolation("ogg.packet_size", f"more than {MAX_PACKET} bytes before byte {at}")
            partial_packet += bytes(data[body : body + length])
            body += length
            if length < 255:
                if not skip:
                    yield partial_packet
                partial_packet, skip = b"", False
        if flags & LAST:
            return


def _page(data: Buffer, at: int) -> tuple[int, int, bytes, int]:
    """(flags, serial, lacing values, offset of the body)."""
    if at + PAGE.size > len(data):
        raise ProtocolViolation("ogg.truncated", f"in the page header at byte {at}")
    magic, version, flags, _, serial, _, checksum, segments = PAGE.unpack_from(data, at)
    if magic != b"OggS" or version:
        raise ProtocolViolation("ogg.magic", f"no page at byte {at}")
    body = at + PAGE.size + segments
    lacing = bytes(data[at + PAGE.size : body])
    end = body + sum(lacing)
    if len(lacing) < segments or end > len(data):
        raise ProtocolViolation("ogg.truncated", f"in the page at byte {at}")
    page = bytearray(data[at:end])
    page[22:26] = bytes(4)
    if crc(bytes(page)) != checksum:
        raise ProtocolViolation("ogg.crc", f"of the page at byte {at}")
    return flags, serial, lacing, body


class OggWriter:
    """Bytes of a file: `header`, then what `packet` returns, then `finish`. `serial` is any 32 bits."""

    def __init__(self, serial: int, channels: int = 2) -> None:
        self._serial = serial & 0xFFFFFFFF
        self._channels = channels
        self._number = 0
        self._pending: list[bytes] = []
        self._granule = 0

    def header(self) -> bytes:
        head = HEAD.pack(b"OpusHead", 1, self._channels, PRE_SKIP, RATE, 0, 0)
        vendor = b"lkactor"
        tags = b"OpusTags" + struct.pack("<I", len(vendor)) + vendor + struct.pack("<I", 0)
        return self._page([head], 0, FIRST) + self._page([tags], 0, 0)

    def packet(self, data: Buffer, timestamp: int) -> bytes:
        """`timestamp` at 48 kHz from the first packet: gaps (loss, DTX) stay gaps. Mostly returns nothing yet."""
        out = b""
        packet = bytes(data)
        if self._pending and (len(self._pending) >= PACKETS_PER_PAGE or self._segments(packet) > 255):
            out = self._flush(0)
        self._pending.append(packet)
        self._granule = max(self._granule, timestamp) + packet_samples(packet)
        return out

    def finish(self) -> bytes:
        return self._flush(LAST)

    def _segments(self, more: bytes) -> int:
        return sum(len(packet) // 255 + 1 for packet in (*self._pending, more))

    def _flush(self, flags: int) -> bytes:
        packets, self._pending = self._pending, []
        return self._page(packets, self._granule, flags)

    def _page(self, packets: list[bytes], granule: int, flags: int) -> bytes:
        lacing = b"".join(b"\xff" * (len(packet) // 255) + bytes((len(packet) % 255,)) for packet in packets)
        body = lacing + b"".join(packets)
        fields = (b"OggS", 0, flags, granule, self._serial, self._number)
        self._number += 1
        checksum = crc(PAGE.pack(*fields, 0, len(lacing)) + body)
        return PAGE.pack(*fields, checksum, len(lacing)) + body
