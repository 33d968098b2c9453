"""Which reader a file wants, and the writer a received track wants."""

from __future__ import annotations

from lkactor.errors import ProtocolViolation
from lkactor.media.annexb import read_annexb
from lkactor.media.frame import Buffer, MediaFile
from lkactor.media.ivf import COUNT_OFFSET, FOURCC_OF, ivf_frame, ivf_header, read_ivf
from lkactor.media.keyframes import vp8_size
from lkactor.media.ogg import OggWriter, read_ogg

SUFFIXES = {".ivf": "VP8, VP9 or AV1", ".ogg": "Opus", ".opus": "Opus", ".h264": "H.264", ".264": "H.264"}


def read_media(data: Buffer, suffix: str, fps: float = 30.0) -> MediaFile:
    """By the file's suffix, in lower case. Raises ProtocolViolation, "media.suffix" for an unknown one."""
    match suffix:
        case ".ivf":
            return read_ivf(data)
        case ".ogg" | ".opus":
            return read_ogg(data)
        case ".h264" | ".264":
            return read_annexb(data, fps)
    known = ", ".join(f"{name} ({what})" for name, what in SUFFIXES.items())
    raise ProtocolViolation("media.suffix", f"suffix {suffix!r}; known are {known}")


class TrackWriter:
    """The bytes of a file that plays, from the frames of one track in order. Timestamps are RTP's, extended.

    `patch` is what to write over the file's beginning at the end: (offset, bytes), or None.
    """

    def __init__(self, mime: str, *, width: int = 0, height: int = 0, serial: int = 1, channels: int = 2) -> None:
        if mime not in FOURCC_OF and mime not in ("audio/opus", "video/h264"):
            raise ProtocolViolation("media.codec", f"no file format for {mime}")
        self._mime = mime
        self._size = width, height
        self._ogg = OggWriter(serial, channels) if mime == "audio/opus" else None
        self._first: int | None = None
        self.frames = 0

    @staticmethod
    def suffix(mime: str) -> str | None:
        """None: there is no file format for it here."""
        if mime in FOURCC_OF:
            return ".ivf"
        return {"audio/opus": ".ogg", "video/h264": ".h264"}.get(mime)

    def frame(self, data: bytes, timestamp: int) -> bytes:
        out = b""
        if self._first is None:
            self._first = timestamp
            out = self._header(data)
        self.frames += 1
        since = timestamp - self._first
        if self._ogg is not None:
            return out + self._ogg.packet(data, since)
        return out + (data if self._mime == "video/h264" else ivf_frame(data, since))

    def finish(self) -> bytes:
        return self._ogg.finish() if self._ogg is not None and self._first is not None else b""

    @property
    def patch(self) -> tuple[int, bytes] | None:
        return (COUNT_OFFSET, self.frames.to_bytes(4, "little")) if self._mime in FOURCC_OF and self.frames else None

    def _header(self, first: bytes) -> bytes:
        if self._ogg is not None:
            return self._ogg.header()
        if self._mime == "video/h264":
            return b""
        size = vp8_size(first) if self._mime == "video/vp8" else None
        return ivf_header(self._mime, *(size or self._size))
