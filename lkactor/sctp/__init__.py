"""SCTP over DTLS and the data channels on it (RFC 9260, 8831, 8832, 3758, 6525)."""

from lkactor.sctp.association import SctpAssociation, State
from lkactor.sctp.events import (
    ChannelClosed,
    ChannelOpened,
    MessageReceived,
    SctpClosed,
    SctpConnected,
    SctpEvent,
    SctpLimits,
    SctpSendBufferFull,
)

__all__ = [
    "ChannelClosed",
    "ChannelOpened",
    "MessageReceived",
    "SctpAssociation",
    "SctpClosed",
    "SctpConnected",
    "SctpEvent",
    "SctpLimits",
    "SctpSendBufferFull",
    "State",
]
