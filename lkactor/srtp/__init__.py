"""SRTP and SRTCP. The only package that imports pylibsrtp."""

from lkactor.srtp.keys import SrtpKeys, SrtpProfile
from lkactor.srtp.session import SendBuffer, SrtpReceiver, SrtpSender, kernel_access

__all__ = ["SendBuffer", "SrtpKeys", "SrtpProfile", "SrtpReceiver", "SrtpSender", "kernel_access"]
