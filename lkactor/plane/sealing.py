"""SRTP of the kernel plane: `SrtpSender` and `SrtpReceiver` whose RTP goes through `seal.c`, so that Python and the
pump's thread go on where the other has stopped. RTCP, and profiles that are not GCM, stay with libsrtp."""

from __future__ import annotations

from typing import Any

from lkactor.plane._kernel import ffi, lib
from lkactor.srtp import PacketBuffer, SrtpKeys, SrtpProfile, SrtpReceiver, SrtpSender, libsrtp

_GCM = (SrtpProfile.AEAD_AES_128_GCM, SrtpProfile.AEAD_AES_256_GCM)
_buffer = PacketBuffer(1, 2048)
"""For one packet at a time; all but the pump's thread runs on the thread of the Trio loop."""


def srtp_of(keys: SrtpKeys) -> tuple[SrtpSender, SrtpReceiver]:
    """For what a peer connection sends and for what it receives."""
    if keys.profile in _GCM:
        sending = _cipher(keys.local_key, keys.local_salt, opens=False)
        opening = _cipher(keys.remote_key, keys.remote_salt, opens=True)
        if sending is not None and opening is not None:
            return SealingSender(keys, sending), OpeningReceiver(keys, opening)
    return libsrtp(keys)


def _cipher(key: bytes, salt: bytes, *, opens: bool) -> Any:
    """None: this processor lacks the instructions."""
    cipher = lib.lk_cipher_new(key, len(key), salt, opens)
    return None if cipher == ffi.NULL else ffi.gc(cipher, lib.lk_cipher_free)


class SealingSender(SrtpSender):
    __slots__ = ("cipher",)

    def __init__(self, keys: SrtpKeys, cipher: Any) -> None:
        super().__init__(keys)
        self.cipher = self._state = cipher
        self._protect = lib.lk_seal

    def protect_rtp(self, data: bytes) -> bytes:
        size = len(data)
        _buffer.view[:size] = data
        return _buffer.view[: self.protect_rtp_into(_buffer, 0, size)].tobytes()


class OpeningReceiver(SrtpReceiver):
    __slots__ = ("cipher",)

    def __init__(self, keys: SrtpKeys, cipher: Any) -> None:
        super().__init__(keys)
        self.cipher = self._state = cipher
        self._unprotect = lib.lk_open
