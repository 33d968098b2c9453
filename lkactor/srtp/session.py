"""SRTP and SRTCP through libsrtp (RFC 3711, RFC 7714).

The hot path, `protect_rtp_into`, calls libsrtp in place on a reused buffer: pylibsrtp's public call costs about 1.2 us
more per packet in copies. Its private names are used behind a check at import; without them the public call serves.
"""

from __future__ import annotations

import ctypes
from typing import Any

import pylibsrtp
from pylibsrtp import Policy, Session

from lkactor.errors import ProtocolViolation
from lkactor.srtp.keys import SrtpKeys, SrtpProfile

try:
    from pylibsrtp._binding import ffi as ffi
    from pylibsrtp._binding import lib as lib
except ImportError:
    ffi = lib = None

WINDOW = 1024
"""Late and reordered packets are forwarded as they come, so replay windows are wide."""
SENT_WINDOW = 512
"""Nothing older is kept to be sent again (lkactor/sfu/leg.py: HISTORY), and libsrtp moves all of it at every packet."""
MAX_TRAILER = 144
_POLICY_PROFILE = {
    SrtpProfile.AEAD_AES_128_GCM: Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    SrtpProfile.AEAD_AES_256_GCM: Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
    SrtpProfile.AES128_CM_SHA1_80: Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
}
_MESSAGES = {
    "authentication failure": "srtp.auth",
    "replay check failed (bad index)": "srtp.replay",
    "replay check failed (index too old)": "srtp.old",
}
_REASONS = {7: "srtp.auth", 9: "srtp.replay", 10: "srtp.old"}
"""srtp_err_status_t of libsrtp 2."""
PROTECT_TYPE = "<ctype 'srtp_err_status_t(*)(struct srtp_ctx_t_ *, void *, int *)'>"
"""libsrtp 2's; libsrtp 3 has another."""
IN_PLACE = ffi is not None and str(ffi.typeof(lib.srtp_protect)) == PROTECT_TYPE and hasattr(Session(), "_srtp")


def kernel_access() -> tuple[int, int, int] | None:
    """The addresses of libsrtp's srtp_protect, srtp_unprotect and srtp_unprotect_rtcp, for the C kernel of the
    forwarding plane; None if they cannot be had."""
    if not IN_PLACE:
        return None
    names = ("srtp_protect", "srtp_unprotect", "srtp_unprotect_rtcp")
    protect, unprotect, unprotect_rtcp = (int(ffi.cast("uintptr_t", ffi.addressof(lib, name))) for name in names)
    return protect, unprotect, unprotect_rtcp


def signing_access() -> tuple[int, int]:
    """The addresses of the HMAC function of libsrtp's OpenSSL and of its SHA-1; zeros if they cannot be had."""
    try:
        openssl = ctypes.CDLL(pylibsrtp._binding.__file__)
        openssl.EVP_sha1.restype = ctypes.c_void_p
        return ctypes.cast(openssl.HMAC, ctypes.c_void_p).value or 0, openssl.EVP_sha1() or 0
    except (OSError, AttributeError):
        return 0, 0


def _session(profile: SrtpProfile, key: bytes, salt: bytes, kind: int, window: int) -> Session:
    policy = Policy(key=key + salt, ssrc_type=kind, srtp_profile=_POLICY_PROFILE[profile])
    policy.window_size = window
    policy.allow_repeat_tx = True
    return Session(policy=policy)


class PacketBuffer:
    """Slots for packets on their way, reused by every burst. `view` is the memory; a slot to protect a packet in has
    room for the trailer."""

    __slots__ = ("cdata", "length", "slot_size", "slots", "view")

    def __init__(self, slots: int = 256, slot_size: int = 1536) -> None:
        self.slots = slots
        self.slot_size = slot_size
        memory = bytearray(slots * slot_size)
        self.view = memoryview(memory)
        self.cdata: Any = ffi.from_buffer("char[]", memory) if IN_PLACE else None
        self.length: Any = ffi.new("int *") if IN_PLACE else None


_RECEIVED = PacketBuffer(1, 2048)
"""Where packets are opened, one at a time; a datagram is no larger."""


class SrtpSender:
    """Protects what we send, any SSRC."""

    __slots__ = ("_context", "_protect", "_session", "_state", "profile")

    def __init__(self, keys: SrtpKeys) -> None:
        self.profile = keys.profile
        self._session = _session(keys.profile, keys.local_key, keys.local_salt, Policy.SSRC_ANY_OUTBOUND, SENT_WINDOW)
        self._context: Any = self._session._srtp[0] if IN_PLACE else None
        self._protect: Any = lib.srtp_protect if IN_PLACE else None
        self._state: Any = self._context
        """What protects RTP, and its first argument."""

    @property
    def context(self) -> Any:
        """The srtp_t, valid while this object lives; None if it cannot be had."""
        return self._context

    @property
    def context_address(self) -> int:
        """Of the srtp_t, valid while this object lives; 0 if it cannot be had."""
        return int(ffi.cast("uintptr_t", self._context)) if self._context is not None else 0

    def protect_rtp(self, data: bytes) -> bytes:
        """Raises ValueError for a packet over 1356 bytes."""
        return self._session.protect(data)

    def protect_rtcp(self, data: bytes) -> bytes:
        """Raises ValueError for a compound over 1352 bytes."""
        return self._session.protect_rtcp(data)

    def protect_rtp_into(self, buffer: PacketBuffer, offset: int, length: int) -> int:
        """Protect the packet at `offset` in place; returns its new length. The slot must have MAX_TRAILER spare."""
        if self._context is None:
            out = self._session.protect(bytes(buffer.view[offset : offset + length]))
            buffer.view[offset : offset + len(out)] = out
            return len(out)
        size = buffer.length
        size[0] = length
        status = self._protect(self._state, buffer.cdata + offset, size)
        if status:
            raise RuntimeError(f"a packet cannot be protected: status {status}")
        return int(size[0])


class SrtpReceiver:
    """Opens what the peer sends, any SSRC. Failures are the peer's: ProtocolViolation("srtp....")."""

    __slots__ = ("_context", "_session", "_state", "_unprotect", "profile")

    def __init__(self, keys: SrtpKeys) -> None:
        self.profile = keys.profile
        self._session = _session(keys.profile, keys.remote_key, keys.remote_salt, Policy.SSRC_ANY_INBOUND, WINDOW)
        self._context: Any = self._session._srtp[0] if IN_PLACE else None
        self._unprotect: Any = lib.srtp_unprotect if IN_PLACE else None
        self._state: Any = self._context
        """What opens RTP, and its first argument."""

    @property
    def context_address(self) -> int:
        """Of the srtp_t, valid while this object lives; 0 if it cannot be had."""
        return int(ffi.cast("uintptr_t", self._context)) if self._context is not None else 0

    def unprotect_rtp(self, data: bytes) -> bytes:
        size = len(data)
        if size < 12:
            raise ProtocolViolation("srtp.short")
        if self._context is None:
            return self._unprotect_rtp(data)
        if size > _RECEIVED.slot_size:
            raise ProtocolViolation("srtp.too_long")
        _RECEIVED.view[:size] = data
        return self.unprotect_rtp_in(_RECEIVED, size)

    def unprotect_rtp_in(self, buffer: PacketBuffer, size: int) -> bytes:
        """As `unprotect_rtp`, of the packet of `size` octets, a header's at least, that begins the buffer, which is no
        good afterwards."""
        if self._context is None:
            return self._unprotect_rtp(bytes(buffer.view[:size]))
        length = buffer.length
        length[0] = size
        status = self._unprotect(self._state, buffer.cdata, length)
        if status:
            raise ProtocolViolation(_REASONS.get(status, "srtp.invalid"))
        return buffer.view[: length[0]].tobytes()

    def _unprotect_rtp(self, data: bytes) -> bytes:
        try:
            return self._session.unprotect(data)
        except pylibsrtp.Error as error:
            raise ProtocolViolation(_MESSAGES.get(str(error), "srtp.invalid")) from None
        except ValueError:
            raise ProtocolViolation("srtp.too_long") from None

    def unprotect_rtcp(self, data: bytes) -> bytes:
        if len(data) < 12:
            raise ProtocolViolation("srtcp.short")
        try:
            return self._session.unprotect_rtcp(data)
        except pylibsrtp.Error as error:
            reason = _MESSAGES.get(str(error), "srtp.invalid").replace("srtp.", "srtcp.")
            raise ProtocolViolation(reason) from None
        except ValueError:
            raise ProtocolViolation("srtcp.too_long") from None


def libsrtp(keys: SrtpKeys) -> tuple[SrtpSender, SrtpReceiver]:
    """For what a peer connection sends and for what it receives."""
    return SrtpSender(keys), SrtpReceiver(keys)
