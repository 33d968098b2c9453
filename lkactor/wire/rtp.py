"""RTP packets (RFC 3550 section 5), header extensions (RFC 8285), retransmission payloads (RFC 4588).

    0                   1                   2                   3
    |V=2|P|X|  CC   |M|     PT      |       sequence number         |
    |                           timestamp                           |
    |                             SSRC                              |
    |  CC x CSRC  |  X: profile, length in words, extension ...     |
    |  payload ...                           | P: padding, count    |

`parse_rtp` runs once per input packet and is the hot path: one unpack, no copy of the payload, no dictionary of
extensions. Extensions are looked up by a scan when somebody asks; a packet has three or four of them.
"""

from collections.abc import Iterator, Mapping
from struct import Struct
from types import MappingProxyType
from typing import Final

from lkactor.errors import ProtocolViolation

RTP_HEADER_SIZE: Final = 12
ONE_BYTE_PROFILE: Final = 0xBEDE
TWO_BYTE_PROFILE: Final = 0x1000
"""The low four bits are "appbits", free for the application (RFC 8285 section 4.3)."""
MAX_EXTENSION_WORDS: Final = 0xFFFF
NO_EXTENSIONS: Final[Mapping[int, bytes]] = MappingProxyType({})

_HEADER = Struct("!BBHII")
_unpack_header = _HEADER.unpack_from
_EXTENSION_HEADER = Struct("!HH")
_unpack_extension_header = _EXTENSION_HEADER.unpack_from


_RTCP_TYPES = range(192, 224)


def is_rtcp(data: bytes) -> bool:
    """True for RTCP on a muxed port: second byte 192..223 (RFC 5761 section 4). A datagram too short is not RTCP."""
    return len(data) > 1 and data[1] in _RTCP_TYPES


def is_rtp(data: bytes | memoryview) -> bool:
    """True for RTP on a muxed port, protected or not, of at least a header's size (RFC 7983 section 7)."""
    return len(data) >= RTP_HEADER_SIZE and data[0] >> 6 == 2 and data[1] not in _RTCP_TYPES


class RtpPacket:
    """A parsed packet. Offsets into `data`; nothing is copied. Shared by all legs and never changed by them.

    `payload_end - payload_offset == 0` is a packet of padding only. `extension_profile` is 0 without extension; the
    extension elements lie in `data[extension_offset:extension_end]`. `arrival` is in seconds, monotonic.
    `rest`: it has been received and forwarded already, only some legs are left to serve with it.
    """

    __slots__ = (
        "arrival",
        "data",
        "extension_end",
        "extension_offset",
        "extension_profile",
        "marker",
        "payload_end",
        "payload_offset",
        "payload_type",
        "rest",
        "sequence",
        "ssrc",
        "timestamp",
    )

    data: bytes
    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload_offset: int
    payload_end: int
    extension_profile: int
    extension_offset: int
    extension_end: int
    arrival: float
    rest: bool

    def __repr__(self) -> str:
        return (
            f"RtpPacket(ssrc={self.ssrc}, payload_type={self.payload_type}, sequence={self.sequence}, "
            f"timestamp={self.timestamp}, marker={self.marker}, payload={self.payload_end - self.payload_offset} bytes)"
        )

    @property
    def payload(self) -> memoryview:
        """The payload without padding, as a view."""
        return memoryview(self.data)[self.payload_offset : self.payload_end]

    @property
    def padding(self) -> int:
        """Bytes of padding, the count byte included."""
        return len(self.data) - self.payload_end

    @property
    def csrcs(self) -> tuple[int, ...]:
        """Contributing sources."""
        return Struct(f"!{self.data[0] & 0x0F}I").unpack_from(self.data, RTP_HEADER_SIZE)

    def extension(self, id: int) -> bytes | None:
        """The value of the first element `id`, or None. Scans; malformed tails are ignored, never an error."""
        profile = self.extension_profile
        data = self.data
        position = self.extension_offset
        end = self.extension_end
        if profile == ONE_BYTE_PROFILE:
            while position < end:
                byte = data[position]
                element = byte >> 4
                if element == 0:
                    # Id 0 is padding: one zero byte. With a length it is not legal and section 4.2 ends the scan.
                    if byte:
                        return None
                    position += 1
                    continue
                if element == 15:  # reserved: stop, keep what was read (RFC 8285 section 4.2)
                    return None
                start = position + 1
                position = start + (byte & 0x0F) + 1
                if element == id:
                    return data[start:position] if position <= end else None
        elif profile:
            while position < end:
                element = data[position]
                if element == 0:  # padding has no length byte (section 4.3)
                    position += 1
                    continue
                start = position + 2
                if start > end:
                    return None
                position = start + data[position + 1]
                if element == id:
                    return data[start:position] if position <= end else None
        return None

    def extensions(self) -> dict[int, bytes]:
        """Every element by id, the first one winning. Not for the hot path."""
        found: dict[int, bytes] = {}
        for id, start, end in self.extension_spans():
            found.setdefault(id, self.data[start:end])
        return found

    def extension_spans(self) -> Iterator[tuple[int, int, int]]:
        """(id, start, end) of every well-formed element, offsets into `data`."""
        data, position, end = self.data, self.extension_offset, self.extension_end
        one_byte = self.extension_profile == ONE_BYTE_PROFILE
        while position < end:
            byte = data[position]
            if byte == 0:
                position += 1
                continue
            if one_byte:
                id, start = byte >> 4, position + 1
                if id in (0, 15):
                    return
                position = start + (byte & 0x0F) + 1
            else:
                id, start = byte, position + 2
                if start > end:
                    return
                position = start + data[position + 1]
            if position > end:
                return
            yield id, start, position


def parse_rtp(data: bytes, arrival: float = 0.0) -> RtpPacket:
    """Parse one unprotected RTP packet. Raises ProtocolViolation("rtp.truncated" | "rtp.version" | "rtp.padding").

    An extension of an unknown profile is skipped over and not shown (RFC 3550 section 5.3.1).
    """
    length = len(data)
    if length < 12:
        raise ProtocolViolation("rtp.truncated")
    packet = RtpPacket()
    first, second, packet.sequence, packet.timestamp, packet.ssrc = _unpack_header(data)
    packet.data = data
    packet.arrival = arrival
    packet.rest = False
    packet.payload_type = second & 0x7F
    packet.marker = second > 0x7F
    if first == 0x90:  # version 2 and an extension: nearly every WebRTC packet
        offset = 12
    elif first == 0x80:
        packet.extension_profile = packet.extension_offset = packet.extension_end = 0
        packet.payload_offset = 12
        packet.payload_end = length
        return packet
    else:
        if first >> 6 != 2:
            raise ProtocolViolation("rtp.version")
        if first & 0x20:
            padding = data[-1]
            length -= padding
            # The count includes itself, so zero is malformed; padding may not reach into the header.
            if padding == 0 or length < 12:
                raise ProtocolViolation("rtp.padding")
        offset = 12 + 4 * (first & 0x0F)
        if not first & 0x10:
            if offset > length:
                raise ProtocolViolation("rtp.truncated")
            packet.extension_profile = packet.extension_offset = packet.extension_end = 0
            packet.payload_offset = offset
            packet.payload_end = length
            return packet
    start = offset + 4
    if start > length:
        raise ProtocolViolation("rtp.truncated")
    profile, words = _unpack_extension_header(data, offset)
    end = start + 4 * words
    if end > length:
        raise ProtocolViolation("rtp.truncated")
    packet.extension_profile = profile if profile == 0xBEDE or profile & 0xFFF0 == 0x1000 else 0
    packet.extension_offset = start
    packet.extension_end = end
    packet.payload_offset = end
    packet.payload_end = length
    return packet


def encode_extensions(extensions: Mapping[int, bytes]) -> bytes:
    """The extension block with its four-byte header, zero-padded to a word; b"" when there is nothing to say.

    One-byte form unless an id is above 14 or a value is empty or longer than 16 bytes (RFC 8285 section 4.2, 4.3).
    Raises ValueError for what neither form can hold: a bug of the caller.
    """
    if not extensions:
        return b""
    if min(extensions) < 1 or max(extensions) > 255 or max(map(len, extensions.values())) > 255:
        raise ValueError("extension id must be 1..255 and its value at most 255 bytes")
    body = bytearray()
    if max(extensions) <= 14 and all(1 <= len(value) <= 16 for value in extensions.values()):
        profile = ONE_BYTE_PROFILE
        for id, value in extensions.items():
            body.append(id << 4 | len(value) - 1)
            body += value
    else:
        profile = TWO_BYTE_PROFILE
        for id, value in extensions.items():
            body += bytes((id, len(value)))
            body += value
    body += bytes(-len(body) % 4)
    return _EXTENSION_HEADER.pack(profile, len(body) // 4) + bytes(body)


def build_rtp(
    *,
    payload_type: int,
    sequence: int,
    timestamp: int,
    ssrc: int,
    marker: bool = False,
    payload: bytes | memoryview = b"",
    extensions: Mapping[int, bytes] = NO_EXTENSIONS,
    padding: int = 0,
    csrcs: tuple[int, ...] = (),
) -> bytes:
    """One RTP packet. `padding` is the number of padding bytes including the count byte, 0..255.

    `sequence` and `timestamp` are taken modulo their width, so extended values may be passed. Raises ValueError for
    arguments the format cannot hold.
    """
    if not 0 <= payload_type <= 127 or not 0 <= padding <= 255 or len(csrcs) > 15:
        raise ValueError("payload type, padding or CSRC count out of range")
    extension = encode_extensions(extensions)
    first = 0x80 | (0x20 if padding else 0) | (0x10 if extension else 0) | len(csrcs)
    second = (0x80 if marker else 0) | payload_type
    header = _HEADER.pack(first, second, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc)
    sources = Struct(f"!{len(csrcs)}I").pack(*csrcs) if csrcs else b""
    tail = bytes(padding - 1) + bytes((padding,)) if padding else b""
    return b"".join((header, sources, extension, payload, tail))


def unwrap_rtx(packet: RtpPacket, *, payload_type: int, ssrc: int) -> RtpPacket | None:
    """The original packet inside a retransmission (RFC 4588 section 4), with the original's payload type and SSRC.

    Extensions, marker and timestamp are those of the retransmission, which carries them unchanged. The two bytes of
    OSN leave the payload and the padding is stripped. None for padding-only packets: probes have no original.
    """
    offset, end = packet.payload_offset, packet.payload_end
    if end - offset < 2:
        return None
    data = packet.data
    original = bytearray(data[:offset])
    original[0] &= 0xDF
    original[1] = (original[1] & 0x80) | payload_type
    original[2:4] = data[offset : offset + 2]
    original[8:12] = ssrc.to_bytes(4, "big")
    original += data[offset + 2 : end]
    return parse_rtp(bytes(original), packet.arrival)


def wrap_rtx(packet: RtpPacket, *, payload_type: int, ssrc: int, sequence: int) -> bytes:
    """The retransmission of `packet` on the RTX stream: its header, then OSN, then its payload (RFC 4588 section 4)."""
    data = packet.data
    wrapped = bytearray(data[: packet.payload_offset])
    wrapped[0] &= 0xDF
    wrapped[1] = (wrapped[1] & 0x80) | payload_type
    wrapped[2:4] = (sequence & 0xFFFF).to_bytes(2, "big")
    wrapped[8:12] = ssrc.to_bytes(4, "big")
    wrapped += data[2:4]
    wrapped += data[packet.payload_offset : packet.payload_end]
    return bytes(wrapped)
