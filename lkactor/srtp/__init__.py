"""SRTP and SRTCP. The only package that imports pylibsrtp."""

from lkactor.srtp.batch import AVAILABLE as SLOTS_AVAILABLE
from lkactor.srtp.batch import SlotArray
from lkactor.srtp.keys import SrtpKeys, SrtpProfile
from lkactor.srtp.session import REASONS, PacketBuffer, SrtpReceiver, SrtpSender, kernel_access, signing_access

__all__ = [
    "REASONS",
    "SLOTS_AVAILABLE",
    "PacketBuffer",
    "SlotArray",
    "SrtpKeys",
    "SrtpProfile",
    "SrtpReceiver",
    "SrtpSender",
    "kernel_access",
    "signing_access",
]
