"""The Data Channel Establishment Protocol (RFC 8832): DATA_CHANNEL_OPEN and DATA_CHANNEL_ACK.

| channel type | order     | reliability parameter   |
|--------------|-----------|-------------------------|
| 0x00 / 0x80  | yes / no  | none: reliable          |
| 0x01 / 0x81  | yes / no  | number of retransmits   |
| 0x02 / 0x82  | yes / no  | lifetime, milliseconds  |
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from lkactor.errors import ProtocolViolation

PPID_DCEP, PPID_STRING, PPID_BINARY, PPID_STRING_EMPTY, PPID_BINARY_EMPTY = 50, 51, 53, 56, 57
ACK = b"\x02"
_OPEN = struct.Struct(">BBHIHH")
_MESSAGE_OPEN = 0x03
_UNORDERED = 0x80
_PRIORITY_NORMAL = 256


@dataclass(frozen=True, slots=True)
class Open:
    label: str
    ordered: bool = True
    max_retransmits: int | None = None
    max_lifetime_ms: int | None = None
    protocol: str = ""

    def build(self) -> bytes:
        kind, parameter = 0, 0
        if self.max_retransmits is not None:
            kind, parameter = 1, self.max_retransmits
        elif self.max_lifetime_ms is not None:
            kind, parameter = 2, self.max_lifetime_ms
        if not self.ordered:
            kind |= _UNORDERED
        label, protocol = self.label.encode(), self.protocol.encode()
        head = _OPEN.pack(_MESSAGE_OPEN, kind, _PRIORITY_NORMAL, parameter, len(label), len(protocol))
        return head + label + protocol


def parse(data: bytes) -> Open | None:
    """None: an ACK. Raises ProtocolViolation on everything that is neither (RFC 8832 section 8.2.1)."""
    if data[:1] == ACK:
        return None
    if data[:1] != bytes([_MESSAGE_OPEN]):
        raise ProtocolViolation("dcep.unknown_message")
    if len(data) < _OPEN.size:
        raise ProtocolViolation("dcep.truncated")
    _, kind, _, parameter, label_size, protocol_size = _OPEN.unpack_from(data)
    reliability = kind & ~_UNORDERED
    if reliability > 2:
        raise ProtocolViolation("dcep.channel_type")
    if len(data) != _OPEN.size + label_size + protocol_size:
        raise ProtocolViolation("dcep.length")
    try:
        label = data[_OPEN.size : _OPEN.size + label_size].decode()
        protocol = data[_OPEN.size + label_size :].decode()
    except UnicodeDecodeError as error:
        raise ProtocolViolation("dcep.utf8") from error
    return Open(
        label,
        ordered=not kind & _UNORDERED,
        max_retransmits=parameter if reliability == 1 else None,
        max_lifetime_ms=parameter if reliability == 2 else None,
        protocol=protocol,
    )
