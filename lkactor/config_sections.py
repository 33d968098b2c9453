"""The sections of the configuration as dataclasses, LiveKit's names and defaults (livekit-surface sections 5, 12).

These are the one source of which keys there are, of their types and of their ranges; `lkactor.config` reads the hints.
Durations are seconds (in YAML Go's notation, "500ms", or a number of seconds). A port of 0 is any free one where we
listen anyway, and off where a section says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any


@dataclass(frozen=True, slots=True)
class Span:
    """The whole numbers that a key takes, both ends included."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class OneOf:
    """The words that a key takes."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cidr:
    """Text that must be an IP network, or one address."""


Port = Annotated[int, Span(0, 65535)]
RemotePort = Annotated[int, Span(1, 65535)]
Limit = Annotated[int, Span(-1, 2**53)]
"""-1 and 0 are no limit."""
Network = Annotated[str, Cidr()]
NOT_YAML = {"yaml": False}
"""Metadata of fields that are worked out, not written."""


@dataclass(frozen=True, slots=True)
class CodecConfig:
    mime: str
    fmtp_line: str = ""


DEFAULT_CODECS = tuple(
    CodecConfig(mime)
    for mime in (
        "audio/PCMU", "audio/PCMA", "audio/opus", "audio/red", "video/VP8", "video/H264", "video/VP9", "video/AV1",
        "video/H265", "video/rtx",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TurnServerConfig:
    """An external TURN server. `secret` makes time-limited credentials; `secret_file` is where it may be instead."""

    host: str
    port: RemotePort
    protocol: Annotated[str, OneOf(("udp", "tcp", "tls"))] = "udp"
    username: str = ""
    credential: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    secret_file: str = ""
    ttl: int = 14400


@dataclass(frozen=True, slots=True)
class PliThrottle:
    """Seconds between key frame requests, by layer."""

    low_quality: float = 0.5
    mid_quality: float = 1.0
    high_quality: float = 1.0


@dataclass(frozen=True, slots=True)
class InterfaceFilter:
    """Names of network interfaces; with both lists only `includes` counts."""

    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IpFilter:
    """CIDRs; with both lists only `includes` counts."""

    includes: tuple[Network, ...] = ()
    excludes: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class CongestionControlConfig:
    """The switches. The reference's tuning constants are known keys without effect."""

    enabled: bool = True
    allow_pause: bool = False


@dataclass(frozen=True, slots=True)
class RtcConfig:
    udp_port: Port = 0
    """In YAML also a range, "7882-7892": this is its first port. 0 in the file: any free one."""
    udp_port_end: int = field(default=0, metadata=NOT_YAML)
    """The last port of the range, 0 without one."""
    tcp_port: Port | None = 7881
    """0: none, as in LiveKit; but with `udp_port: 0` any free one."""
    port_range_start: Port = 50000
    port_range_end: Port = 60000
    """Instead of `udp_port`. Where neither is set these stand, as in LiveKit; in development it is `udp_port` 7882."""
    node_ip: str = ""
    """"v4", "v6" or "v4,v6"; in YAML also {ipv4, ipv6}."""
    use_external_ip: bool = False
    external_ip_only: bool = False
    advertise_internal_ip: bool = False
    skip_external_ip_validation: bool = False
    use_ice_lite: bool = False
    enable_loopback_candidate: bool = False
    force_tcp: bool = False
    allow_tcp_fallback: bool = True
    tcp_fallback_rtt_threshold: int = 0
    """Milliseconds."""
    allow_udp_unstable_fallback: bool = False
    reconnect_on_publication_error: bool = False
    reconnect_on_subscription_error: bool = False
    reconnect_on_data_channel_error: bool = False
    interfaces: InterfaceFilter = field(default_factory=InterfaceFilter)
    ips: IpFilter = field(default_factory=IpFilter)
    stun_servers: tuple[str, ...] = ()
    turn_servers: tuple[TurnServerConfig, ...] = ()
    pli_throttle: PliThrottle = field(default_factory=PliThrottle)
    packet_buffer_size_video: int = 500
    packet_buffer_size_audio: int = 200
    datachannel_slow_threshold: int = 0
    """Bits per second; 0: nobody is too slow for reliable data."""
    congestion_control: CongestionControlConfig = field(default_factory=CongestionControlConfig)


@dataclass(frozen=True, slots=True)
class AudioConfig:
    """Active speakers: -dBov, percent, milliseconds, intervals."""

    active_level: Annotated[int, Span(0, 127)] = 35
    min_percentile: Annotated[int, Span(0, 100)] = 40
    update_interval: Annotated[int, Span(10, 60000)] = 400
    smooth_intervals: int = 2


@dataclass(frozen=True, slots=True)
class VideoConfig:
    """`dynacast_pause_delay`: seconds until a publisher is told that a quality is wanted no more.
    `codec_regression_threshold`: in a room of fewer participants everybody gets the backup codec as soon as one needs
    it, if the publisher leaves it to the server; 0: in any room."""

    dynacast_pause_delay: float = 5.0
    codec_regression_threshold: int = 5


@dataclass(frozen=True, slots=True)
class PlayoutDelayConfig:
    """Milliseconds."""

    enabled: bool = False
    min: int = 0
    max: int = 0


@dataclass(frozen=True, slots=True)
class RoomConfig:
    """Timeouts in seconds, `update_batch_target_size` in bytes; what a room gets that asks for nothing else."""

    enabled_codecs: tuple[CodecConfig, ...] = DEFAULT_CODECS
    auto_create: bool = True
    max_participants: int = 0
    enable_remote_unmute: bool = False
    empty_timeout: int = 300
    departure_timeout: int = 20
    playout_delay: PlayoutDelayConfig = field(default_factory=PlayoutDelayConfig)
    sync_streams: bool = False
    create_room_timeout: float = 10.0
    create_room_attempts: int = 3
    update_batch_target_size: int = 131072
    enable_full_room_in_webhooks: bool = False
    room_configurations: Mapping[str, Any] = field(default_factory=dict)
    """By preset name, the fields of a RoomConfiguration."""


@dataclass(frozen=True, slots=True)
class LimitConfig:
    """Bytes, except for the first four (livekit-surface section 12)."""

    num_tracks: Limit = 0
    bytes_per_sec: Limit = 0
    subscription_limit_video: Limit = 0
    subscription_limit_audio: Limit = 0
    max_metadata_size: int = 524288
    max_attributes_size: int = 65536
    max_room_name_length: int = 256
    max_participant_identity_length: int = 256
    max_participant_name_length: int = 256
    signal_message_size_limit: int = 2097152
    agent_signal_message_size_limit: int = 2097152
    max_api_request_body_size: int = 10485760
    max_data_blob_key_length: int = 256
    max_data_blobs_size: int = 64000
    max_data_track_custom_encoding_length: int = 32


@dataclass(frozen=True, slots=True)
class WebhookFilter:
    """Event names; with `include_events` only those are sent."""

    include_events: tuple[str, ...] = ()
    exclude_events: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WebhookQueue:
    """The reference drops what is older (seconds) or deeper in the queue; here nothing is dropped, so no effect."""

    max_age: float = 30.0
    max_depth: int = 200


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """`api_key`, one of `keys`, signs."""

    urls: tuple[str, ...] = ()
    api_key: str = ""
    resource_url_notifier: WebhookQueue = field(default_factory=WebhookQueue)
    filter_params: WebhookFilter = field(default_factory=WebhookFilter)


@dataclass(frozen=True, slots=True)
class TurnConfig:
    """The TURN server of our own. A port of 0 is off; with `external_tls` plain TCP comes in on `tls_port`."""

    enabled: bool = False
    domain: str = ""
    cert_file: str = ""
    key_file: str = ""
    tls_port: Port = 0
    udp_port: Port = 0
    relay_range_start: Port = 30000
    relay_range_end: Port = 40000
    external_tls: bool = False
    bind_addresses: tuple[str, ...] = ("0.0.0.0",)
    per_user_relay_allocation_limit: int = 12
    ttl_seconds: Annotated[int, Span(0, 86400)] = 300
    allow_restricted_peer_cidrs: tuple[Network, ...] = ()
    deny_peer_cidrs: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class PrometheusConfig:
    """Port 0 is off. User name and password: both or none."""

    port: Port = 0
    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class LoggingConfig:
    """`level` is empty for the default: info, and debug in development."""

    level: Annotated[str, OneOf(("", "debug", "info", "warn", "error"))] = ""
    json: bool = False


@dataclass(frozen=True, slots=True)
class DebugHandlerConfig:
    """Port 0 is off."""

    port: Port = 0


@dataclass(frozen=True, slots=True)
class SignalRelayConfig:
    """Seconds and messages. One node has no relay; the values are read and named as without effect."""

    retry_timeout: float = 7.5
    min_retry_interval: float = 0.5
    max_retry_interval: float = 4.0
    stream_buffer_size: int = 1000
    connect_attempts: int = 3


@dataclass(frozen=True, slots=True)
class AgentsConfig:
    """`target_load` is the load, 0 to 1, over which a worker gets no more jobs."""

    enable_user_data_recording: bool = False
    enable_user_data_redaction: bool = False
    target_load: float = 0.7


@dataclass(frozen=True, slots=True)
class GstSignallingConfig:
    """Ours: the signalling server of the GStreamer demos. Without `port` it is off; without `cert` it is plain `ws`."""

    port: Port | None = None
    cert: str = ""
    key: str = ""
    keepalive: float = 30.0
    """Seconds of silence before a ping."""
    bridge: Annotated[str, OneOf(("", "open", "token"))] = ""
    """Who may be bridged into a LiveKit room: everybody, or who has a token for it ("", but in
    development everybody)."""


@dataclass(frozen=True, slots=True)
class EventsConfig:
    """Ours: where the event log is kept, and how much of it (docs/webhooks.md). Without `directory`: in memory."""

    directory: str = ""
    max_age: float = 604800.0
    """Seconds."""
    max_size: int = 268435456
    """Bytes; in memory at most 8 MiB."""
