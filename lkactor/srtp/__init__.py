"""SRTP and SRTCP. The only package that imports pylibsrtp."""

from lkactor.srtp.batch import AVAILABLE as SLOTS_AVAILABLE
from lkactor.srtp.batch import SlotArray
from lkactor.srtp.keys import SrtpKeys, SrtpProfile
from lkactor.srtp.session import PacketBuffer, SrtpReceiver, SrtpSender, kernel_access, libsrtp, signing_access

__all__ = [
    "SLOTS_AVAILABLE",
    "PacketBuffer",
    "SlotArray",
    "SrtpKeys",
    "SrtpProfile",
    "SrtpReceiver",
    "SrtpSender",
    "kernel_access",
    "libsrtp",
    "signing_access",
]
