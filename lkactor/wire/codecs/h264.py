"""H.264 payloads (RFC 6184 section 5): which NAL units a packet starts, key frame test, size from the SPS.

    type 1..23 single NAL unit | 24 STAP-A | 25 STAP-B | 26, 27 MTAP | 28 FU-A | 29 FU-B

A key frame is recognised by its SPS (type 7), as LiveKit does: a decoder cannot start on an IDR slice without it.
"""

from collections.abc import Iterator

from lkactor.errors import ProtocolViolation
from lkactor.wire.codecs.bits import BitReader, without_emulation

SPS = 7
STAP_A, STAP_B, MTAP16, MTAP24, FU_A, FU_B = 24, 25, 26, 27, 28, 29
_HIGH_PROFILES = frozenset((44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244))
_MAX_MACROBLOCKS = 1055
"""Per side: 139264 macroblocks a frame at level 6.2, a side at most sqrt(8 x that) (A.3.1)."""
_AGGREGATION = {STAP_A: (1, 0), STAP_B: (3, 0), MTAP16: (3, 3), MTAP24: (3, 4)}
"""(bytes before the first unit, bytes between a unit's size and the unit: DOND and TS offset) (section 5.7)."""


def nal_units(payload: bytes | memoryview) -> Iterator[bytes]:
    """NAL units that start in this packet, header first; of a fragmented one as much as is here.

    Raises ProtocolViolation("h264.truncated"), after the units before the damage.
    """
    if not payload:
        raise ProtocolViolation("h264.truncated")
    kind = payload[0] & 0x1F
    if 1 <= kind <= 23:
        yield bytes(payload)
    elif kind in (FU_A, FU_B):
        if len(payload) < 2:
            raise ProtocolViolation("h264.truncated")
        if payload[1] & 0x80:  # S: the header is rebuilt from FU indicator and FU header (section 5.8)
            start = 2 if kind == FU_A else 4
            yield bytes((payload[0] & 0xE0 | payload[1] & 0x1F,)) + bytes(payload[start:])
    elif kind in _AGGREGATION:
        at, skip = _AGGREGATION[kind]
        while at < len(payload):
            start = at + 2 + skip
            end = start + int.from_bytes(payload[at : at + 2], "big")
            if start >= end or end > len(payload):
                raise ProtocolViolation("h264.truncated")
            yield bytes(payload[start:end])
            at = end


def is_keyframe(payload: bytes | memoryview) -> bool:
    """True when an SPS starts in this packet. Raises ProtocolViolation("h264.truncated")."""
    return any(unit[0] & 0x1F == SPS for unit in nal_units(payload))


def frame_size(payload: bytes | memoryview) -> tuple[int, int] | None:
    """(width, height) in pixels from the first SPS in this packet, None without one. Raises ProtocolViolation."""
    for unit in nal_units(payload):
        if unit[0] & 0x1F == SPS:
            return sps_size(unit)
    return None


def sps_size(sps: bytes) -> tuple[int, int]:
    """(width, height) after cropping of an SPS NAL unit (H.264 section 7.3.2.1.1).

    Raises ProtocolViolation("h264.sps").
    """
    reader = BitReader(without_emulation(sps[1:256]), "h264.sps")
    profile = reader.read(8)
    reader.skip(16)  # constraint flags, level
    reader.ue()  # seq_parameter_set_id
    chroma_format = _skip_high_profile(reader) if profile in _HIGH_PROFILES else 1
    reader.ue()  # log2_max_frame_num_minus4
    _skip_picture_order(reader)
    reader.ue()  # max_num_ref_frames
    reader.skip(1)  # gaps_in_frame_num_value_allowed_flag
    width, height = reader.ue() + 1, reader.ue() + 1
    if width > _MAX_MACROBLOCKS or height > _MAX_MACROBLOCKS:
        raise ProtocolViolation("h264.sps")
    frame_mbs_only = reader.read(1)
    if not frame_mbs_only:
        reader.skip(1)  # mb_adaptive_frame_field_flag
    reader.skip(1)  # direct_8x8_inference_flag
    left = right = top = bottom = 0
    if reader.flag():
        left, right, top, bottom = reader.ue(), reader.ue(), reader.ue(), reader.ue()
    crop_x = 2 if chroma_format in (1, 2) else 1
    crop_y = (2 if chroma_format == 1 else 1) * (2 - frame_mbs_only)
    pixels_x = width * 16 - (left + right) * crop_x
    pixels_y = height * 16 * (2 - frame_mbs_only) - (top + bottom) * crop_y
    if pixels_x <= 0 or pixels_y <= 0:
        raise ProtocolViolation("h264.sps")
    return pixels_x, pixels_y


def _skip_high_profile(reader: BitReader) -> int:
    """Up to the scaling matrix; returns ChromaArrayType."""
    chroma_format = reader.ue()
    if chroma_format > 3:
        raise ProtocolViolation("h264.sps")
    separate = chroma_format == 3 and reader.flag()
    reader.ue()  # bit_depth_luma_minus8
    reader.ue()  # bit_depth_chroma_minus8
    reader.skip(1)  # qpprime_y_zero_transform_bypass_flag
    if reader.flag():
        for index in range(12 if chroma_format == 3 else 8):
            if reader.flag():
                _skip_scaling_list(reader, 16 if index < 6 else 64)
    return 0 if separate else chroma_format


def _skip_scaling_list(reader: BitReader, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + reader.se()) & 0xFF
        last = following or last


def _skip_picture_order(reader: BitReader) -> None:
    kind = reader.ue()
    if kind == 0:
        reader.ue()  # log2_max_pic_order_cnt_lsb_minus4
    elif kind == 1:
        reader.skip(1)
        reader.se()
        reader.se()
        for _ in range(min(reader.ue(), 256)):
            reader.se()
    elif kind > 2:
        raise ProtocolViolation("h264.sps")
