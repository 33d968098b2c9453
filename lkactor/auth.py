"""Access tokens: HS256 JWTs with LiveKit's claims (livekit-surface sections 1.2 and 4).

The texts of refusals are the reference's. A token appears in none of our exceptions; the front, which must repeat it to
its sender, adds it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from google.protobuf.json_format import ParseDict, ParseError
from livekit.protocol import models, room

LEEWAY = 60.0
MIN_REFRESH_LIFE = 600.0
MAX_TOKEN = 64 * 1024
BEARER = "Bearer "
SOURCES = {
    "camera": models.TrackSource.CAMERA,
    "microphone": models.TrackSource.MICROPHONE,
    "screen_share": models.TrackSource.SCREEN_SHARE,
    "screen_share_audio": models.TrackSource.SCREEN_SHARE_AUDIO,
}
SOURCE_NAMES = {number: name for name, number in SOURCES.items()}
_VIDEO_FIELDS = {
    "roomCreate": "room_create",
    "roomList": "room_list",
    "roomRecord": "room_record",
    "roomAdmin": "room_admin",
    "roomJoin": "room_join",
    "room": "room",
    "destinationRoom": "destination_room",
    "canPublish": "can_publish",
    "canSubscribe": "can_subscribe",
    "canPublishData": "can_publish_data",
    "canPublishSources": "can_publish_sources",
    "canUpdateOwnMetadata": "can_update_own_metadata",
    "ingressAdmin": "ingress_admin",
    "hidden": "hidden",
    "recorder": "recorder",
    "agent": "agent",
    "canSubscribeMetrics": "can_subscribe_metrics",
    "canManageAgentSession": "can_manage_agent_session",
}
_CAMEL = {snake: camel for camel, snake in _VIDEO_FIELDS.items()}


class AuthError(Exception):
    """A token that is not accepted: HTTP 401. `echoes_token`: the reference repeats the token to its sender."""

    def __init__(self, text: str, *, echoes_token: bool = False) -> None:
        super().__init__(text)
        self.echoes_token = echoes_token

    def body(self, token: str) -> str:
        """The text of the answer. For the sender of the token only, never for a log."""
        return f"invalid token: {token}, error: {self}" if self.echoes_token else str(self)


@dataclass(frozen=True, slots=True)
class VideoGrant:
    """`video` of the claims; what is absent has LiveKit's default."""

    room_create: bool = False
    room_list: bool = False
    room_record: bool = False
    room_admin: bool = False
    room_join: bool = False
    room: str = ""
    destination_room: str = ""
    can_publish: bool = True
    can_subscribe: bool = True
    can_publish_data: bool = True
    """By default the same as `can_publish`."""
    can_publish_sources: tuple[str, ...] = ()
    """Empty: all."""
    can_update_own_metadata: bool = False
    ingress_admin: bool = False
    hidden: bool = False
    recorder: bool = False
    agent: bool = False
    can_subscribe_metrics: bool = False
    can_manage_agent_session: bool = False


@dataclass(frozen=True, slots=True)
class Claims:
    """A token that was accepted."""

    api_key: str
    identity: str
    expires_at: float
    """Unix seconds."""
    name: str = ""
    kind: str = "standard"
    kind_details: tuple[str, ...] = ()
    metadata: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""
    room_config: room.RoomConfiguration | None = None
    room_preset: str = ""
    video: VideoGrant | None = None


# -- taking a token in


def token_from_request(authorization: str | None, access_token: str | None) -> str | None:
    """The header wins over the query. Raises AuthError for a header of another scheme."""
    if authorization:
        if not authorization.startswith(BEARER):
            raise AuthError("invalid authorization header. Must start with Bearer ")
        return authorization[len(BEARER) :]
    return access_token or None


def verify(token: str, keys: Mapping[str, str], now_unix: float) -> Claims:
    """Check signature, issuer and times (60 s of leeway). Raises AuthError."""
    if len(token) > MAX_TOKEN:
        raise AuthError("invalid authorization token")
    try:
        if jwt.get_unverified_header(token).get("alg") != "HS256":
            raise AuthError("invalid authorization token")
        issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise AuthError("invalid authorization token") from None
    secret = keys.get(issuer) if isinstance(issuer, str) else None
    if secret is None or not isinstance(issuer, str):
        shown = issuer[:64] if isinstance(issuer, str) else ""
        raise AuthError(f"invalid API key: {shown}")
    options: Any = dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_sub"), False)
    options["enforce_minimum_key_length"] = False  # The key is the operator's choice; dev mode's is "secret".
    try:
        payload = jwt.decode(token, secret, algorithms=["HS256"], options=options)
    except jwt.PyJWTError:
        raise AuthError("token signature is invalid: signature is invalid", echoes_token=True) from None
    _check_times(payload, now_unix)
    return _claims(issuer, payload)


def _check_times(payload: Mapping[str, Any], now_unix: float) -> None:
    expires, not_before = payload.get("exp"), payload.get("nbf")
    if expires is None or not _is_time(expires):
        raise AuthError("token is missing required claim: exp claim is required", echoes_token=True)
    if now_unix - LEEWAY >= expires:
        raise AuthError("token has invalid claims: token is expired", echoes_token=True)
    if not_before is not None and (not _is_time(not_before) or now_unix + LEEWAY < not_before):
        raise AuthError("token has invalid claims: token is not valid yet", echoes_token=True)


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _claims(issuer: str, payload: Mapping[str, Any]) -> Claims:
    video = payload.get("video")
    return Claims(
        api_key=issuer,
        identity=_text(payload, "sub") or _text(payload, "identity") or _text(payload, "jti"),
        expires_at=float(payload["exp"]),
        name=_text(payload, "name"),
        kind=_text(payload, "kind") or "standard",
        kind_details=tuple(item for item in _list(payload, "kindDetails") if isinstance(item, str)),
        metadata=_text(payload, "metadata"),
        attributes=_strings(payload.get("attributes")),
        sha256=_text(payload, "sha256"),
        room_config=_room_config(payload.get("roomConfig")),
        room_preset=_text(payload, "roomPreset"),
        video=_video(video) if isinstance(video, dict) else None,
    )


def _video(claim: Mapping[str, Any]) -> VideoGrant:
    values: dict[str, Any] = {}
    for name, attribute in _VIDEO_FIELDS.items():
        value = claim.get(name)
        if value is None:
            continue
        if attribute in ("room", "destination_room"):
            if isinstance(value, str):
                values[attribute] = value
        elif attribute == "can_publish_sources":
            if isinstance(value, list):
                values[attribute] = tuple(item.lower() for item in value if isinstance(item, str))
        elif isinstance(value, bool):
            values[attribute] = value
    values.setdefault("can_publish_data", values.get("can_publish", True))
    return VideoGrant(**values)


def _text(payload: Mapping[str, Any], name: str) -> str:
    value = payload.get(name)
    return value if isinstance(value, str) else ""


def _list(payload: Mapping[str, Any], name: str) -> list[Any]:
    value = payload.get(name)
    return value if isinstance(value, list) else []


def _strings(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {key: item for key, item in value.items() if isinstance(item, str)}


def _room_config(value: Any) -> room.RoomConfiguration | None:
    if not isinstance(value, dict):
        return None
    config = room.RoomConfiguration()
    try:
        ParseDict(value, config, ignore_unknown_fields=True, max_recursion_depth=32)
    except (ParseError, ValueError, TypeError):
        return None
    return config


# -- what a grant means


def to_participant_permission(video: VideoGrant | None) -> models.ParticipantPermission:
    """The permission that clients see."""
    grant = video or VideoGrant()
    return models.ParticipantPermission(
        can_subscribe=grant.can_subscribe,
        can_publish=grant.can_publish,
        can_publish_data=grant.can_publish_data,
        can_publish_sources=[SOURCES[name] for name in grant.can_publish_sources if name in SOURCES],
        hidden=grant.hidden,
        recorder=grant.recorder,
        can_update_metadata=grant.can_update_own_metadata,
        agent=grant.agent,
        can_subscribe_metrics=grant.can_subscribe_metrics,
        can_manage_agent_session=grant.can_manage_agent_session,
    )


# -- giving tokens out


def issue_token(
    api_key: str,
    secret: str,
    *,
    now_unix: float,
    identity: str = "",
    name: str = "",
    video: Mapping[str, object] | None = None,
    metadata: str = "",
    attributes: Mapping[str, str] | None = None,
    kind: str = "",
    ttl: float = 6 * 3600.0,
    room_config: Mapping[str, object] | None = None,
) -> str:
    """A signed token. `video` takes the grants by either spelling; unknown ones raise ValueError."""
    grants = {_CAMEL.get(key, key): value for key, value in (video or {}).items()}
    unknown = grants.keys() - _VIDEO_FIELDS.keys()
    if unknown:
        raise ValueError(f"unknown grant {sorted(unknown)[0]!r}; known are {', '.join(sorted(_CAMEL))}")
    payload: dict[str, object] = {"iss": api_key, "nbf": int(now_unix), "exp": int(now_unix + ttl), "video": grants}
    optional = {
        "sub": identity,
        "name": name,
        "metadata": metadata,
        "attributes": dict(attributes or {}),
        "kind": kind,
        "roomConfig": dict(room_config or {}),
    }
    payload.update({key: value for key, value in optional.items() if value})
    return jwt.encode(payload, secret, algorithm="HS256")


def issue_refresh_token(claims: Claims, info: models.ParticipantInfo, keys: Mapping[str, str], now_unix: float) -> str:
    """A token for reconnects: at least ten minutes, with the permissions, name and metadata as they are now."""
    permission = info.permission
    base = claims.video or VideoGrant()
    video: dict[str, object] = {
        "room": base.room,
        "room_join": True,
        "room_create": base.room_create,
        "room_list": base.room_list,
        "room_admin": base.room_admin,
        "can_publish": permission.can_publish,
        "can_subscribe": permission.can_subscribe,
        "can_publish_data": permission.can_publish_data,
        "can_publish_sources": [SOURCE_NAMES[n] for n in permission.can_publish_sources if n in SOURCE_NAMES],
        "can_update_own_metadata": permission.can_update_metadata,
        "hidden": permission.hidden,
        "recorder": permission.recorder,
        "agent": permission.agent,
    }
    secret = keys.get(claims.api_key)
    key = claims.api_key if secret is not None else next(iter(keys))
    return issue_token(
        key,
        keys[key],
        identity=info.identity,
        name=info.name,
        metadata=info.metadata,
        attributes=dict(info.attributes),
        kind=claims.kind if claims.kind != "standard" else "",
        video={name: value for name, value in video.items() if value is not False or name.startswith("can_")},
        ttl=max(MIN_REFRESH_LIFE, claims.expires_at - now_unix),
        now_unix=now_unix,
    )
