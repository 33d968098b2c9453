"""What an SCTP association says, what bounds it, and what it raises at its own user.

Events are for `SctpAssociation.next_event`. Times are seconds, sizes bytes of user data.
"""

from __future__ import annotations

from dataclasses import dataclass


class SctpSendBufferFull(Exception):
    """`send` would hold more than `SctpLimits.max_send_buffer` unacknowledged bytes: the peer does not keep up."""


@dataclass(frozen=True, slots=True)
class SctpLimits:
    """Every bound and timer of an association. Defaults suit one data-channel association of a WebRTC peer.

    rto_min: RFC 9260 section 16 recommends 1 s, chosen against delayed SACKs on unknown paths. Data channels carry
    interactive data and browsers use far less, so the default is 0.2 s; a lone packet in flight gets the peer's 0.2 s
    of SACK delay on top (see `sender.SACK_DELAY_ALLOWANCE`), which keeps the low minimum from firing too early.
    """

    max_streams: int = 1024
    max_channels: int = 1024
    max_message_size: int = 256 * 1024
    receive_window: int = 1024 * 1024
    max_send_buffer: int = 16 * 1024 * 1024
    max_cwnd: int = 4 * 1024 * 1024
    max_gap_ranges: int = 1024
    max_tsn_span: int = 16 * 1024
    rto_initial: float = 1.0
    rto_min: float = 0.2
    rto_max: float = 60.0
    sack_delay: float = 0.2
    cookie_lifetime: float = 60.0
    max_init_retransmits: int = 8
    max_retransmits: int = 10
    heartbeat_interval: float | None = None


@dataclass(frozen=True, slots=True)
class SctpConnected:
    """The association is up. Comes again after the peer restarted it; its channels are gone then."""


@dataclass(frozen=True, slots=True)
class SctpClosed:
    """The association has ended. reason: a short code of ours ("aborted", "retransmission_limit", "shutdown" ...)."""

    reason: str


@dataclass(frozen=True, slots=True)
class ChannelOpened:
    """The peer acknowledged our channel, opened one itself, or a negotiated one became usable."""

    channel_id: int
    label: str
    ordered: bool = True
    max_retransmits: int | None = None
    max_lifetime_ms: int | None = None
    protocol: str = ""
    negotiated: bool = False
    remote: bool = False


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    channel_id: int


@dataclass(frozen=True, slots=True)
class MessageReceived:
    channel_id: int
    data: bytes
    binary: bool


SctpEvent = SctpConnected | SctpClosed | ChannelOpened | ChannelClosed | MessageReceived
