"""The configuration: a LiveKit YAML as it is, strict about keys (livekit-surface section 5).

`Config.load` takes the YAML's text and overrides by dotted path. What is wrong raises ConfigError, which says where,
what and what to do. Keys that are right but without effect in this build are listed by `inert_keys`.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from lkactor.config_reader import ConfigError, Reader, find
from lkactor.config_schema import APPLIED, EXTRA, WITHOUT_EFFECT, Node, Schema, fields_of, plain_hint, schema_of
from lkactor.config_sections import (
    NOT_YAML,
    AgentsConfig,
    AudioConfig,
    CodecConfig,
    CongestionControlConfig,
    DebugHandlerConfig,
    EventsConfig,
    GstSignallingConfig,
    LimitConfig,
    LoggingConfig,
    OneOf,
    PlayoutDelayConfig,
    PliThrottle,
    Port,
    PrometheusConfig,
    RoomConfig,
    RtcConfig,
    SignalRelayConfig,
    TurnConfig,
    TurnServerConfig,
    VideoConfig,
    WebhookConfig,
)
from lkactor.config_values import Invalid, OverrideText, build, check_secrets, convert, integer
from lkactor.room.presets import parse_preset

__all__ = [
    "AgentsConfig",
    "AudioConfig",
    "CodecConfig",
    "Config",
    "ConfigError",
    "CongestionControlConfig",
    "DebugHandlerConfig",
    "EventsConfig",
    "GstSignallingConfig",
    "LimitConfig",
    "LoggingConfig",
    "PlayoutDelayConfig",
    "PliThrottle",
    "PrometheusConfig",
    "RoomConfig",
    "RtcConfig",
    "SignalRelayConfig",
    "TurnConfig",
    "TurnServerConfig",
    "VideoConfig",
    "WebhookConfig",
    "environment_overrides",
    "parse_keys",
]

ENVIRONMENT = {
    "NODE_IP": "rtc.node_ip",
    "UDP_PORT": "rtc.udp_port",
    "REDIS_HOST": "redis.address",
    "REDIS_PASSWORD": "redis.password",
    "LIVEKIT_TURN_CERT": "turn.cert_file",
    "LIVEKIT_TURN_KEY": "turn.key_file",
}
"""Variables that are not `LIVEKIT_` and the path (livekit-surface 5.1)."""
UNLIMITED = 2**53
"""What a `limit.max_...` of 0 means."""
DEV_UDP_PORT = 7882
DEV_RELAY_PORTS = ("30000", "30002")


@dataclass(frozen=True, slots=True)
class Config:
    port: Port = 7880
    bind_addresses: tuple[str, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    key_file: str = ""
    """Where `keys` are instead: who serves reads the file and calls `with_keys`."""
    region: str = ""
    development: bool = False
    enable_data_tracks: bool = True
    enable_participant_data_blob: bool = False
    rtc: RtcConfig = field(default_factory=RtcConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    room: RoomConfig = field(default_factory=RoomConfig)
    limit: LimitConfig = field(default_factory=LimitConfig)
    webhook: WebhookConfig = field(default_factory=WebhookConfig)
    turn: TurnConfig = field(default_factory=TurnConfig)
    prometheus: PrometheusConfig = field(default_factory=PrometheusConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    debug_handler: DebugHandlerConfig = field(default_factory=DebugHandlerConfig)
    signal_relay: SignalRelayConfig = field(default_factory=SignalRelayConfig)
    agents: AgentsConfig = field(default_factory=AgentsConfig)
    gst_signalling: GstSignallingConfig = field(default_factory=GstSignallingConfig)
    events: EventsConfig = field(default_factory=EventsConfig)
    forwarding_plane: Annotated[str, OneOf(("auto", "kernel", "python"))] = "auto"
    """Who forwards packets: auto, kernel (the compiled one, or no start) or python."""
    inert: tuple[str, ...] = field(default=(), metadata=NOT_YAML)

    @classmethod
    def load(
        cls, text: str = "", *, overrides: Mapping[str, object] | None = None, dev: bool = False, strict: bool = True
    ) -> Config:
        """From YAML, then `overrides` ({"rtc.udp_port": "0"}), then what `--dev` fills in. Raises ConfigError."""
        reader, schema = Reader(strict=strict), schema_of(cls, EXTRA)
        tree = reader.read(text, schema)
        for path, value in (overrides or {}).items():
            _override(tree, schema, path, value)
            reader.lines.pop(path, None)
        inert = [path for path in _paths(tree, schema, "") if _is_inert(path, fields_of(cls))] + reader.unknown
        if dev:
            tree["development"] = True
            if not tree.get("key_file"):
                tree["keys"] = tree.get("keys") or {"devkey": "secret"}
            tree["bind_addresses"] = tree.get("bind_addresses") or ["127.0.0.1", "::1"]
        try:
            _settle(tree)
            config = build(cls, {**tree, "inert": tuple(inert)}, "")
            _check(config)
        except Invalid as error:
            line = reader.lines.get(error.path)
            where = f"line {line}: " if line is not None else ""
            raise ConfigError(f"{where}{error.path}: {error.text}") from None
        return config

    def with_keys(self, keys: Mapping[str, str]) -> Config:
        """The same with these keys, as from `key_file`. Raises ConfigError when webhooks sign with another one."""
        config = dataclasses.replace(self, keys=dict(keys), key_file="")
        try:
            _check(config)
        except Invalid as error:
            raise ConfigError(f"{error.path}: {error.text}") from None
        return config

    def inert_keys(self) -> list[str]:
        """Keys that were set and are known, and do nothing yet: docs/status.md says when."""
        return list(self.inert)


def parse_keys(text: str) -> dict[str, str]:
    """`key: secret` lines. Raises ConfigError; what it says does not repeat the secrets."""
    try:
        return check_secrets(Reader().read(text, None))
    except Invalid as error:
        raise ConfigError(f"{error.path}: {error.text}") from None
    except ConfigError:
        raise ConfigError("API keys are `key: secret` lines, each key once, with a space after the colon") from None


def environment_overrides(environ: Mapping[str, str]) -> dict[str, object]:
    """What the environment sets: `LIVEKIT_RTC_TCP_PORT` is rtc.tcp_port. Empty variables count as not set."""
    names = dict(ENVIRONMENT)
    for path, hint in fields_of(Config).items():
        kind, _ = plain_hint(hint)
        items = typing.get_args(kind)
        of_text = bool(items) and plain_hint(items[0])[0] is str and typing.get_origin(kind) is tuple
        if kind in (bool, int, float, str) or of_text:
            names["LIVEKIT_" + path.upper().replace(".", "_")] = path
    return {path: environ[name] for name, path in names.items() if environ.get(name)}


# -- from the tree that was read to the tree that is built


def _override(tree: dict[str, Any], schema: Schema, path: str, value: object) -> None:
    *parents, leaf = path.split(".")
    node, below, prefix = tree, schema, ""
    for parent in parents:
        deeper = find(below, parent, prefix)
        prefix += f"{parent}."
        if not isinstance(deeper, dict):
            raise ConfigError(f"unknown key {path}")
        if not isinstance(node.get(parent), dict):
            node[parent] = {}
        node, below = node[parent], deeper
    _known(value, find(below, leaf, prefix), path)
    node[leaf] = OverrideText(value) if isinstance(value, str) else value


def _known(value: object, schema: Node, path: str) -> None:
    if isinstance(value, Mapping) and isinstance(schema, dict):
        for name, item in value.items():
            _known(item, find(schema, str(name), f"{path}."), f"{path}.{name}")


def _paths(tree: Mapping[str, Any], schema: Schema, prefix: str) -> list[str]:
    paths: list[str] = []
    for name, value in tree.items():
        below = schema.get(name)
        if isinstance(below, dict) and isinstance(value, dict):
            paths += _paths(value, below, f"{prefix}{name}.")
        elif value is not None:
            paths.append(prefix + name)
    return paths


def _is_inert(path: str, fields: Mapping[str, Any]) -> bool:
    if any(path == prefix or path.startswith(f"{prefix}.") for prefix in WITHOUT_EFFECT):
        return True
    return path not in fields and path not in APPLIED


def _settle(tree: dict[str, Any]) -> None:
    """Old names to new ones and the forms that LiveKit has besides plain ones."""
    rtc, limit, old = _section(tree, "rtc"), _section(tree, "limit"), _section(tree, "room")
    for name in ("max_metadata_size", "max_room_name_length", "max_participant_identity_length"):
        value = old.pop(name, None)
        if value is not None and integer(value, f"room.{name}"):
            limit[name] = value
    for name, value in limit.items():
        if "max_" in name and value is not None and not integer(value, f"limit.{name}"):
            limit[name] = UNLIMITED
    if tree.get("prometheus_port") is not None:
        _section(tree, "prometheus")["port"] = tree["prometheus_port"]
    if tree.get("log_level") is not None:
        _section(tree, "logging")["level"] = tree["log_level"]
    turn = _section(tree, "turn")
    bounds = ("relay_range_start", "relay_range_end")
    if any(turn.get(name) in (None, 0, "0") for name in bounds):
        dev = convert(tree.get("development") or False, bool, "development")
        ports: tuple[str | None, ...] = DEV_RELAY_PORTS if dev else (None, None)
        turn |= dict(zip(bounds, ports, strict=True))
    if "node_ip" in rtc:
        rtc["node_ip"] = _node_ip(rtc["node_ip"])
    _settle_udp(rtc, dev=convert(tree.get("development") or False, bool, "development"))


def _settle_udp(rtc: dict[str, Any], *, dev: bool) -> None:
    """A range wins over `udp_port`, and that over the range that nobody set (livekit-surface 5.3)."""
    bounds = ("port_range_start", "port_range_end")
    if all(rtc.get(name) in (None, 0, "0") for name in bounds):
        if dev and rtc.get("udp_port") is None:
            rtc["udp_port"] = DEV_UDP_PORT
        given = rtc.get("udp_port") is not None
        rtc |= dict.fromkeys(bounds, 0 if given else None)
    udp = rtc.get("udp_port")
    if not isinstance(udp, str) or "-" not in udp.strip("- "):
        return
    first, _, last = udp.partition("-")
    rtc["udp_port"] = integer(first.strip(), "rtc.udp_port")
    rtc["udp_port_end"] = integer(last.strip(), "rtc.udp_port")
    if not 0 < rtc["udp_port"] < rtc["udp_port_end"] <= 65535:
        raise Invalid("rtc.udp_port", "a range goes from a lower to a higher port, 1 to 65535")


def _section(tree: dict[str, Any], name: str) -> dict[str, Any]:
    if tree.get(name) is None:
        tree[name] = {}
    section = tree[name]
    if not isinstance(section, dict):
        raise Invalid(name, "expected a mapping")
    return section


def _node_ip(value: Any) -> str:
    """ "v4", "v6", "v4,v6" or {ipv4, ipv6}: at most one of each family."""
    if isinstance(value, dict):
        unknown = value.keys() - {"ipv4", "ipv6"}
        if unknown:
            raise Invalid("rtc.node_ip", f"unknown key {min(unknown)}; known are ipv4 and ipv6")
        parts = [item for item in (value.get("ipv4"), value.get("ipv6")) if item]
    else:
        parts = [part.strip() for part in str(value or "").split(",")] if value else []
    try:
        ips = [ipaddress.ip_address(part) for part in parts]
    except ValueError:
        raise Invalid("rtc.node_ip", "expected IP addresses: v4, v6 or v4,v6") from None
    if len({ip.version for ip in ips}) != len(ips):
        raise Invalid("rtc.node_ip", "expected at most one IPv4 and one IPv6 address")
    return ",".join(str(ip) for ip in ips)


def _check(config: Config) -> None:
    """What only several keys together show."""
    for name, preset in config.room.room_configurations.items():
        try:
            parse_preset(preset)
        except ValueError as error:
            raise Invalid(f"room.room_configurations.{name}", str(error)) from None
    prometheus, turn, gst = config.prometheus, config.turn, config.gst_signalling
    if bool(prometheus.username) != bool(prometheus.password):
        raise Invalid("prometheus", "username and password go together: set both or none")
    if config.rtc.port_range_start > config.rtc.port_range_end:
        raise Invalid("rtc.port_range_start", "the range ends before it starts")
    if turn.relay_range_start > turn.relay_range_end:
        raise Invalid("turn.relay_range_start", "the range ends before it starts")
    if turn.enabled and not turn.udp_port and not turn.tls_port:
        raise Invalid("turn", "enabled needs udp_port or tls_port")
    if turn.enabled and turn.tls_port and not turn.domain:
        raise Invalid("turn", "tls_port needs the domain of the certificate")
    if turn.enabled and turn.tls_port and not turn.external_tls and not (turn.cert_file and turn.key_file):
        raise Invalid("turn", "tls_port needs cert_file and key_file, or external_tls")
    if bool(gst.cert) != bool(gst.key):
        raise Invalid("gst_signalling", "cert and key go together: set both or none")
    if config.webhook.urls and config.webhook.api_key not in config.keys and not config.key_file:
        raise Invalid("webhook.api_key", "api_key is required to use webhooks, and must be one of keys")
