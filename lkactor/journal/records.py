"""One event on disk, and a segment of them.

    segment := MAGIC record*
    record  := length:u32 crc32c:u32 body        length and checksum are of the body; big endian
    body    := cursor:u64 event                   event: a serialized livekit.WebhookEvent; id and created_at are in it

A process that is killed leaves at most one torn record at the end of the last segment, for a write of a prefix is all
that can happen. `scan` ends at the first record that is not whole. A run of zeros (a file system after a power cut) is
no record: length 0 is refused, though its checksum would be right.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import google_crc32c
from google.protobuf.message import DecodeError
from livekit.protocol.webhook import WebhookEvent

MAGIC = b"LKEVENT1"
_HEAD = struct.Struct(">II")
_CURSOR = struct.Struct(">Q")
MIN_BODY = _CURSOR.size + 1
MAX_BODY = 32 * 1024 * 1024
"""Larger is damage: metadata, attributes and names of one event are bounded far below it."""


@dataclass(frozen=True, slots=True)
class Record:
    """An event and its place. Cursors rise strictly; they need not be dense."""

    cursor: int
    event: WebhookEvent
    size: int = field(default=0, compare=False)
    """Bytes on disk."""

    @property
    def key(self) -> str:
        return resource_key(self.event)


def resource_key(event: WebhookEvent) -> str:
    """Events of one resource reach a receiver in order (livekit-surface 6)."""
    if event.HasField("egress_info"):
        return event.egress_info.egress_id
    if event.HasField("ingress_info"):
        return event.ingress_info.ingress_id
    if event.HasField("room"):
        return event.room.name
    if event.HasField("participant"):
        return event.participant.identity
    return event.track.sid


def encode(cursor: int, payload: bytes) -> bytes:
    """A framed record. Raises ValueError over MAX_BODY."""
    body = _CURSOR.pack(cursor) + payload
    if not MIN_BODY <= len(body) <= MAX_BODY:
        raise ValueError(f"an event of {len(payload)} bytes")
    return _HEAD.pack(len(body), google_crc32c.value(body)) + body


@dataclass(frozen=True, slots=True)
class Scan:
    """What a piece of a segment held."""

    records: tuple[Record, ...]
    consumed: int
    """Bytes of whole records."""
    wanted: int
    """Bytes of the record behind `consumed`, which goes on or is torn; 0 if that is not known."""
    damaged: bool
    """What follows is no record, however much more is read."""


def scan(data: bytes) -> Scan:
    """The records of `data`, which begins with a record, not with MAGIC."""
    records: list[Record] = []
    offset = 0
    while len(data) - offset >= _HEAD.size:
        length, checksum = _HEAD.unpack_from(data, offset)
        if not MIN_BODY <= length <= MAX_BODY:
            return Scan(tuple(records), offset, 0, damaged=True)
        end = offset + _HEAD.size + length
        if end > len(data):
            return Scan(tuple(records), offset, end - offset, damaged=False)
        body = data[offset + _HEAD.size : end]
        if google_crc32c.value(body) != checksum:
            return Scan(tuple(records), offset, 0, damaged=True)
        event = WebhookEvent()
        try:
            event.ParseFromString(body[_CURSOR.size :])
        except DecodeError:
            return Scan(tuple(records), offset, 0, damaged=True)
        records.append(Record(_CURSOR.unpack_from(body)[0], event, end - offset))
        offset = end
    return Scan(tuple(records), offset, 0, damaged=False)
