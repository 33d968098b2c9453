"""Frame sizes by MIME type."""

from collections.abc import Callable, Mapping
from typing import Final

from lkactor.errors import ProtocolViolation
from lkactor.wire.codecs import h264, vp8, vp9

_FRAME_SIZE: Final[Mapping[str, Callable[[bytes | memoryview], tuple[int, int] | None]]] = {
    "video/vp8": vp8.frame_size,
    "video/vp9": vp9.frame_size,
    "video/h264": h264.frame_size,
}


def frame_size(mime: str, payload: bytes | memoryview) -> tuple[int, int] | None:
    """(width, height) in pixels if this packet says so (VP8 key frame, H.264 SPS, VP9 structure), else None.

    `mime` in lower case, "video/vp8". Never raises: a payload that cannot be read has no size.
    """
    read = _FRAME_SIZE.get(mime)
    try:
        return read(payload) if read is not None else None
    except ProtocolViolation:
        return None
