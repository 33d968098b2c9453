"""How a client asks to join: query parameters (v0) or a `join_request` (single peer connection).

The presence of `join_request` alone selects the single peer connection, on `/rtc` as on `/rtc/v1`.
Errors carry the HTTP status and the exact text that clients match on. Source: livekit-surface sections 1.4 to 1.6.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from google.protobuf.message import DecodeError
from livekit.protocol import models, rtc

from lkactor.auth import Claims
from lkactor.config import LimitConfig

NOT_PERMITTED = "no permissions to access the room"
MAX_JOIN_REQUEST = 1024 * 1024
ServerOffers = Literal["never", "later", "first"]
"""Whether the server may offer on a single connection: not to LiveKit's clients; to others when it has more to send, or
from the first description on."""


class JoinError(Exception):
    """The join is refused before the upgrade: `status` and a plain-text body.

    `log_as` stands for `text` where others can read it: the text may repeat the client's token.
    """

    def __init__(self, status: int, text: str, *, log_as: str | None = None) -> None:
        self.log_as = text if log_as is None else log_as
        super().__init__(self.log_as)
        self.status = status
        self.text = text


@dataclass(frozen=True, slots=True)
class JoinParameters:
    """What the client said about itself and what it wants, from either form."""

    client: models.ClientInfo
    single: bool = False
    auto_subscribe: bool = True
    auto_subscribe_data_track: bool = False
    adaptive_stream: bool = False
    subscriber_allow_pause: bool | None = None
    disable_ice_lite: bool = False
    reconnect: bool = False
    reconnect_reason: int = 0
    participant_sid: str = ""
    publish: str = ""
    metadata: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    add_tracks: tuple[rtc.AddTrackRequest, ...] = ()
    offer: rtc.SessionDescription | None = None
    sync_state: rtc.SyncState | None = None
    server_offers: ServerOffers = "never"

    @property
    def protocol(self) -> int:
        return self.client.protocol

    @property
    def subscriber_primary(self) -> bool:
        """Two connections and a client that knows of it (protocol 3). The grant is checked by the participant."""
        return not self.single and self.protocol > 2


@dataclass(frozen=True, slots=True)
class JoinIntent:
    """A join that the token allows: who, where, with what."""

    identity: str
    room: str
    claims: Claims
    parameters: JoinParameters


def parse_join(
    query: Mapping[str, str], claims: Claims | None, limits: LimitConfig, *, v1: bool, validate_only: bool = False
) -> JoinIntent:
    """Check a join in the order of the reference, the first failure wins. Raises JoinError."""
    if claims is None or claims.video is None:
        raise JoinError(401, NOT_PERMITTED)
    wrapped = query.get("join_request", "")
    if v1 and not wrapped:
        raise JoinError(400, "join_request is required")
    parameters = _from_join_request(wrapped) if wrapped else _from_query(query, validate_only)
    if not claims.video.room_join:
        raise JoinError(401, "permissions denied")
    check_names(claims.identity, claims.video.room, limits)
    if (parameters.metadata or parameters.attributes) and not claims.video.can_update_own_metadata:
        raise JoinError(401, NOT_PERMITTED)
    identity = claims.identity
    if parameters.publish:
        if not claims.video.can_publish:
            raise JoinError(401, NOT_PERMITTED)
        identity = f"{identity}#{parameters.publish}"
        _check_identity(identity, limits)
    return JoinIntent(identity, claims.video.room, claims, parameters)


def check_names(identity: str, room: str, limits: LimitConfig) -> None:
    """Raises JoinError."""
    if not identity:
        raise JoinError(400, "identity cannot be empty")
    _check_identity(identity, limits)
    if not room:
        raise JoinError(400, "no room name")
    if len(room.encode()) > limits.max_room_name_length:
        raise JoinError(400, f"room name length exceeds limits: max length {limits.max_room_name_length}")


def _check_identity(identity: str, limits: LimitConfig) -> None:
    limit = limits.max_participant_identity_length
    if len(identity.encode()) > limit:
        raise JoinError(400, f"participant identity length exceeds limits: max length {limit}")


def _flag(query: Mapping[str, str], name: str, default: bool) -> bool:
    value = query.get(name)
    return default if value is None or value == "" else value in ("1", "true")


def _number(query: Mapping[str, str], name: str) -> int:
    value = query.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0


def _from_query(query: Mapping[str, str], validate_only: bool) -> JoinParameters:
    attributes: Mapping[str, str] = {}
    if query.get("attributes"):
        decoded = _decode_attributes(query["attributes"])
        if decoded is None and validate_only:
            raise JoinError(400, "cannot decode attributes")
        attributes = decoded or {}
    allow_pause = query.get("subscriber_allow_pause")
    return JoinParameters(
        client=_client_info(query),
        auto_subscribe=_flag(query, "auto_subscribe", True),
        auto_subscribe_data_track=_flag(query, "auto_subscribe_data_track", False),
        adaptive_stream=_flag(query, "adaptive_stream", False),
        subscriber_allow_pause=None if allow_pause is None else allow_pause in ("1", "true"),
        disable_ice_lite=_flag(query, "disable_ice_lite", False),
        reconnect=_flag(query, "reconnect", False),
        reconnect_reason=_number(query, "reconnect_reason"),
        participant_sid=query.get("sid", ""),
        publish=query.get("publish", ""),
        attributes=attributes,
    )


def _client_info(query: Mapping[str, str]) -> models.ClientInfo:
    info = models.ClientInfo(
        version=query.get("version", ""),
        protocol=_number(query, "protocol"),
        os=query.get("os", ""),
        os_version=query.get("os_version", ""),
        device_model=query.get("device_model", ""),
        browser=query.get("browser", ""),
        browser_version=query.get("browser_version", ""),
        network=query.get("network", ""),
        client_protocol=_number(query, "client_protocol"),
    )
    sdk = query.get("sdk", "").upper().replace("REACTNATIVE", "REACT_NATIVE").replace("UNITYWEB", "UNITY_WEB")
    if sdk in models.ClientInfo.SDK.DESCRIPTOR.values_by_name:
        info.sdk = models.ClientInfo.SDK.Value(sdk)  # type: ignore[assignment]
    for name in query.get("capabilities", "").split(","):
        if name in models.ClientInfo.Capability.DESCRIPTOR.values_by_name:
            info.capabilities.append(models.ClientInfo.Capability.Value(name))  # type: ignore[arg-type]
    return info


def _decode_attributes(text: str) -> dict[str, str] | None:
    try:
        value = json.loads(base64.urlsafe_b64decode(text))
    except (ValueError, RecursionError):
        return None
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(item is None or isinstance(item, str) for item in value.values()):
        return None
    return {_clean(key): _clean(item) for key, item in value.items() if item}


def _clean(text: str) -> str:
    """JSON can escape half of a surrogate pair, which UTF-8 cannot say."""
    return text.encode("utf-8", "replace").decode()


def _from_join_request(text: str) -> JoinParameters:
    request = _unwrap(text)
    settings = request.connection_settings
    allow_pause = settings.subscriber_allow_pause if settings.HasField("subscriber_allow_pause") else False
    return JoinParameters(
        client=request.client_info,
        single=True,
        auto_subscribe=settings.auto_subscribe,
        auto_subscribe_data_track=settings.auto_subscribe_data_track,
        adaptive_stream=settings.adaptive_stream,
        subscriber_allow_pause=allow_pause,
        disable_ice_lite=settings.disable_ice_lite,
        reconnect=request.reconnect,
        reconnect_reason=request.reconnect_reason,
        participant_sid=request.participant_sid,
        metadata=request.metadata,
        attributes={key: value for key, value in request.participant_attributes.items() if value},
        add_tracks=tuple(request.add_track_requests),
        offer=request.publisher_offer if request.HasField("publisher_offer") else None,
        sync_state=request.sync_state if request.HasField("sync_state") else None,
    )


def _unwrap(text: str) -> rtc.JoinRequest:
    try:
        raw = base64.b64decode(text, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise JoinError(400, "cannot base64 decode wrapped join request") from None
    wrapped = rtc.WrappedJoinRequest()
    try:
        wrapped.ParseFromString(raw)
    except DecodeError:
        raise JoinError(400, "cannot unmarshal wrapped join request") from None
    body = wrapped.join_request
    if wrapped.compression == rtc.WrappedJoinRequest.Compression.GZIP:
        body = _gunzip(body)
    if len(body) > MAX_JOIN_REQUEST:
        raise JoinError(400, "join request too large")
    request = rtc.JoinRequest()
    try:
        request.ParseFromString(body)
    except DecodeError:
        raise JoinError(400, "cannot unmarshal join request") from None
    return request


def _gunzip(body: bytes) -> bytes:
    """Bounded: a bomb stops at the limit, not after it."""
    inflater = zlib.decompressobj(wbits=31)
    try:
        out = inflater.decompress(body, MAX_JOIN_REQUEST + 1)
    except zlib.error:
        raise JoinError(400, "cannot read decompressed join request") from None
    if len(out) <= MAX_JOIN_REQUEST and not inflater.eof:
        raise JoinError(400, "cannot read decompressed join request")
    return out


def with_address(parameters: JoinParameters, address: str, user_agent: str) -> JoinParameters:
    """Fill in what only the HTTP request knows: the client's address, and its browser if it did not say."""
    client = models.ClientInfo()
    client.CopyFrom(parameters.client)
    client.address = address
    if not client.browser and "Mozilla/" in user_agent:
        for token, name in (("Edg/", "edge"), ("Firefox/", "firefox"), ("Chrome/", "chrome"), ("Safari/", "safari")):
            if token in user_agent:
                client.browser = name
                break
    return replace(parameters, client=client)
