"""The configuration: a LiveKit YAML as it is, strict about keys (livekit-surface section 5).

`Config.load` takes the YAML's text and overrides by dotted path. What is wrong raises ConfigError, which says where,
what and what to do. Keys that are right but without effect in this build are listed by `inert_keys`.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import yaml

from lkactor.config_schema import SCHEMA, Schema


class ConfigError(Exception):
    """The configuration cannot be used."""


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
    """An external TURN server. `protocol` is udp, tcp or tls; `secret` makes time-limited credentials."""

    host: str
    port: int
    protocol: str = "udp"
    username: str = ""
    credential: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    ttl: int = 14400


@dataclass(frozen=True, slots=True)
class PliThrottle:
    """Seconds between key frame requests, by layer."""

    low_quality: float = 0.5
    mid_quality: float = 1.0
    high_quality: float = 1.0


@dataclass(frozen=True, slots=True)
class RtcConfig:
    udp_port: int = 7882
    tcp_port: int | None = 7881
    node_ip: str = ""
    use_ice_lite: bool = False
    enable_loopback_candidate: bool = False
    stun_servers: tuple[str, ...] = ()
    turn_servers: tuple[TurnServerConfig, ...] = ()
    pli_throttle: PliThrottle = field(default_factory=PliThrottle)
    packet_buffer_size_video: int = 500
    packet_buffer_size_audio: int = 200


@dataclass(frozen=True, slots=True)
class AudioConfig:
    """Active speakers: -dBov, percent, milliseconds, intervals."""

    active_level: int = 35
    min_percentile: int = 40
    update_interval: int = 400
    smooth_intervals: int = 2


@dataclass(frozen=True, slots=True)
class VideoConfig:
    """Seconds until a publisher is told that a quality is wanted no more."""

    dynacast_pause_delay: float = 5.0


@dataclass(frozen=True, slots=True)
class RoomConfig:
    """Timeouts in seconds."""

    enabled_codecs: tuple[CodecConfig, ...] = DEFAULT_CODECS
    auto_create: bool = True
    max_participants: int = 0
    enable_remote_unmute: bool = False
    empty_timeout: int = 300
    departure_timeout: int = 20


@dataclass(frozen=True, slots=True)
class LimitConfig:
    """Bytes (livekit-surface section 12)."""

    max_metadata_size: int = 524288
    max_attributes_size: int = 65536
    max_room_name_length: int = 256
    max_participant_identity_length: int = 256
    max_participant_name_length: int = 256
    signal_message_size_limit: int = 2097152
    max_api_request_body_size: int = 10485760
    max_data_blob_key_length: int = 256
    max_data_blobs_size: int = 64000
    max_data_track_custom_encoding_length: int = 32


@dataclass(frozen=True, slots=True)
class Config:
    port: int = 7880
    bind_addresses: tuple[str, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    region: str = ""
    development: bool = False
    enable_data_tracks: bool = True
    enable_participant_data_blob: bool = False
    rtc: RtcConfig = field(default_factory=RtcConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    room: RoomConfig = field(default_factory=RoomConfig)
    limit: LimitConfig = field(default_factory=LimitConfig)
    inert: tuple[str, ...] = ()

    @classmethod
    def load(cls, text: str = "", *, overrides: Mapping[str, object] | None = None, dev: bool = False) -> Config:
        """From YAML, then `overrides` ({"rtc.udp_port": 0}), then what `--dev` fills in. Raises ConfigError."""
        tree = _parse(text)
        for path, value in (overrides or {}).items():
            *parents, leaf = path.split(".")
            node = tree
            for parent in parents:
                if not isinstance(node.get(parent), dict):
                    node[parent] = {}
                node = node[parent]
            node[leaf] = value
        if dev:
            tree["development"] = True
            tree["keys"] = tree.get("keys") or {"devkey": "secret"}
            tree["bind_addresses"] = tree.get("bind_addresses") or ["127.0.0.1", "::1"]
        inert = tuple(path for path in _paths(tree, SCHEMA, "") if path not in _effective(cls, ""))
        return _build(cls, {**tree, "inert": inert}, "")

    def inert_keys(self) -> list[str]:
        """Keys that were set and are known, and do nothing yet: docs/status.md says when."""
        return list(self.inert)


def parse_keys(text: str) -> dict[str, str]:
    """`key: secret` lines. Raises ConfigError; what it says does not repeat the secrets."""
    try:
        keys = yaml.load(text, Loader=yaml.BaseLoader)  # every scalar stays text: 0123 is no octal number
    except yaml.YAMLError:
        keys = None
    if not isinstance(keys, dict):
        raise ConfigError("API keys are `key: secret` lines, with a space after the colon")
    return _check_secrets(keys)


def _check_secrets(keys: Mapping[Any, Any]) -> dict[str, str]:
    """A key without a secret would be open to everyone who guesses what YAML makes of nothing."""
    for key, secret in keys.items():
        if not isinstance(key, str) or not key or not isinstance(secret, str) or not secret:
            raise ConfigError(f"keys: {key!r} has no secret in text; write it in quotes if it looks like a number")
    return dict(keys)


# -- parsing


def _parse(text: str) -> dict[str, Any]:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = yaml.safe_load(text)
        literal = yaml.load(text, Loader=yaml.BaseLoader)  # for the keys: every scalar stays text
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise ConfigError(f"{where}this is not YAML: {getattr(error, 'problem', 'malformed')}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not isinstance(root, yaml.MappingNode):
        raise ConfigError("the configuration must be a mapping of keys to values")
    _check_keys(root, SCHEMA, "")
    if isinstance(tree.get("keys"), dict):
        tree["keys"] = literal["keys"]
    return tree


def _check_keys(node: yaml.MappingNode, schema: Schema, prefix: str) -> None:
    for key_node, value_node in node.value:
        name, line = str(key_node.value), key_node.start_mark.line + 1
        if name not in schema:
            near = difflib.get_close_matches(name, schema, 1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else ""
            raise ConfigError(f"line {line}: unknown key {prefix}{name}{hint}")
        below = schema[name]
        if below is not None and isinstance(value_node, yaml.MappingNode):
            _check_keys(value_node, below, f"{prefix}{name}.")


def _paths(tree: Mapping[str, Any], schema: Schema, prefix: str) -> list[str]:
    paths: list[str] = []
    for name, value in tree.items():
        below = schema.get(name)
        if below is not None and isinstance(value, dict):
            paths += _paths(value, below, f"{prefix}{name}.")
        else:
            paths.append(prefix + name)
    return paths


def _effective(cls: type[Any], prefix: str) -> set[str]:
    """The paths of all fields of the dataclasses: what is no field has no effect."""
    paths: set[str] = set()
    hints = typing.get_type_hints(cls)
    for entry in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[entry.name]):
            paths |= _effective(hints[entry.name], f"{prefix}{entry.name}.")
        else:
            paths.add(prefix + entry.name)
    return paths


T = TypeVar("T")


def _build(cls: type[T], tree: Mapping[str, Any], path: str) -> T:
    hints = typing.get_type_hints(cls)
    values = {}
    for entry in dataclasses.fields(cls):  # type: ignore[arg-type]
        if entry.name in tree and tree[entry.name] is not None:
            values[entry.name] = _convert(tree[entry.name], hints[entry.name], f"{path}{entry.name}")
    try:
        return cls(**values)
    except TypeError:
        raise ConfigError(f"{path.rstrip('.')}: a required key is missing") from None


def _convert(value: Any, hint: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: expected a mapping, got {_shown(value)}")
        return _build(typing.cast(type[Any], hint), value, f"{path}.")
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{path}: expected a list, got {_shown(value)}")
        inner = typing.get_args(hint)[0]
        return tuple(_convert(item, inner, f"{path}[{index}]") for index, item in enumerate(value))
    if origin is types.UnionType:
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if origin is Mapping or getattr(hint, "__origin__", None) is Mapping:
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: expected `key: value` lines")
        return _check_secrets(value)
    return _scalar(value, hint, path)


def _scalar(value: Any, hint: Any, path: str) -> Any:
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if hint is float and not isinstance(value, bool):
        seconds = float(value) if isinstance(value, int | float) else _duration(value)
        if seconds is not None and seconds >= 0:
            return seconds
    if hint is str and isinstance(value, str | int | float):
        return str(value)
    names = {bool: "true or false", int: "a whole number", float: "a duration such as 500ms", str: "text"}
    raise ConfigError(f"{path}: expected {names.get(hint, hint)}, got {_shown(value)}")


def _shown(value: Any) -> str:
    """A value in a message: its kind and, of short plain ones, itself. Secrets are text; text is not repeated."""
    return repr(value) if isinstance(value, bool | int | float) or value is None else f"a {type(value).__name__}"


def _duration(text: Any) -> float | None:
    """Go's notation, seconds: "1m30s", "500ms"."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    if not isinstance(text, str) or not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h))+", text):
        return None
    return sum(float(number) * units[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)(ms|s|m|h)", text))
