"""Data blobs: small named values that a participant leaves for the others to fetch. Pure.

Off unless `enable_participant_data_blob` is set. Source: livekit-surface 2.1 (22, 23), livekit-media 5.4.
"""

from __future__ import annotations

from livekit.protocol import models, rtc

from lkactor.room.publications import Refused

Reason = rtc.RequestResponse.Reason


def key_of(key: models.DataBlobKey) -> bytes:
    """Equal keys have equal bytes."""
    return key.SerializeToString(deterministic=True)


class DataBlobs:
    """The sizes of one participant's blobs; the room keeps the contents."""

    def __init__(self, *, max_key_length: int, max_size: int) -> None:
        self._max_key_length = max_key_length
        self._max_size = max_size
        self._sizes: dict[bytes, int] = {}

    def store(self, blob: models.DataBlob) -> Refused | None:
        """None: stored. A blob of the same key is replaced."""
        key = key_of(blob.key)
        if not key or len(key) > self._max_key_length:
            return Refused(Reason.INVALID_REQUEST, "data blob is invalid")
        if not blob.contents:
            return Refused(Reason.INVALID_REQUEST, "data blob is empty")
        size = len(key) + len(blob.contents)
        if sum(self._sizes.values()) - self._sizes.get(key, 0) + size > self._max_size:
            return Refused(Reason.LIMIT_EXCEEDED, "async attribute definition exceeds limit")
        self._sizes[key] = size
        return None
