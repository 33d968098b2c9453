"""Access tokens: HS256 JWTs with LiveKit's claims (livekit-surface sections 1.2 and 4).

The texts of refusals are the reference's. A token appears in none of our exceptions; the front, which must repeat it to
its sender, adds it there.
"""

from __future__ import annotations

import hmac
import json
import math
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import jwt
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from jwt.algorithms import HMACAlgorithm
from livekit.protocol import models, room

LEEWAY = 60.0
MIN_REFRESH_LIFE = 600.0
MAX_SHOWN = 256
MAX_TOKEN = 64 * 1024
CACHED, MAX_CACHED = 1024, 4096
"""Tokens a `TokenCache` keeps, characters of the longest one."""
DEFAULT_LIFE = 6 * 3600.0
BEARER = "Bearer "
_compact = json.JSONEncoder(separators=(",", ":")).encode
_JWT_HEADER = urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=") + b"."
ALGORITHMS = frozenset(
    {"none", "EdDSA", *(f"{family}{bits}" for family in ("HS", "RS", "ES", "PS") for bits in (256, 384, 512))}
)
"""Those whose tokens the reference can read; it takes HS256 only."""
HS256 = HMACAlgorithm(HMACAlgorithm.SHA256)
SOURCES = {
    "unknown": models.TrackSource.UNKNOWN,
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
_OTHER_FIELDS = {
    "sip": {"admin": "admin", "call": "call"},
    "agent": {"admin": "admin", "simulationAdmin": "simulation_admin", "databaseAdmin": "database_admin"},
    "inference": {"perform": "perform"},
    "observability": {"write": "write"},
}


class AuthError(Exception):
    """A token that is not accepted: HTTP 401. `echoes_token`: the reference repeats the token to its sender.

    `by` is for operators, who can tell a clock that is wrong from a token that is old by it; the sender is not told.
    """

    def __init__(self, text: str, *, echoes_token: bool = False, by: str = "", log_as: str = "") -> None:
        super().__init__(text)
        self.log_as = log_as
        self.echoes_token = echoes_token
        self.by = by

    @property
    def log_text(self) -> str:
        return self.log_as or (f"{self} ({self.by})" if self.by else str(self))

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
class SipGrant:
    """`sip` of the claims."""

    admin: bool = False
    call: bool = False


@dataclass(frozen=True, slots=True)
class AgentGrant:
    """`agent` of the claims: what LiveKit's cloud services ask for; not `video.agent`."""

    admin: bool = False
    simulation_admin: bool = False
    database_admin: bool = False


@dataclass(frozen=True, slots=True)
class InferenceGrant:
    """`inference` of the claims."""

    perform: bool = False


@dataclass(frozen=True, slots=True)
class ObservabilityGrant:
    """`observability` of the claims."""

    write: bool = False


@dataclass(frozen=True, slots=True)
class Claims:
    """A token that was accepted."""

    api_key: str
    identity: str
    expires_at: float
    """Unix seconds; infinite for a token without an end."""
    name: str = ""
    kind: str = "standard"
    kind_details: tuple[str, ...] = ()
    metadata: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""
    room_config: room.RoomConfiguration | None = None
    room_preset: str = ""
    video: VideoGrant | None = None
    sip: SipGrant | None = None
    agent: AgentGrant | None = None
    inference: InferenceGrant | None = None
    observability: ObservabilityGrant | None = None


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
    issuer, payload = _genuine(token, keys)
    _check_times(payload, now_unix)
    return _claims(issuer, payload)


class TokenCache:
    """Tokens that were found genuine lately: an API client sends the same one with every request.

    What a token says is remembered, what can change is looked at each time: the keys, the clock.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Genuine] = {}

    def verify(self, token: str, keys: Mapping[str, str], now_unix: float) -> Claims:
        """As `verify`."""
        known = self._known.get(token)
        if known is None or keys.get(known.issuer) != known.secret:
            self._known.pop(token, None)
            issuer, payload = _genuine(token, keys)
            known = _Genuine(issuer, keys[issuer], payload)
            if len(token) <= MAX_CACHED:
                while len(self._known) >= CACHED:
                    del self._known[next(iter(self._known))]
                self._known[token] = known
        _check_times(known.payload, now_unix)
        if known.claims is None:
            known.claims = _claims(known.issuer, known.payload)
        return known.claims


class _Genuine:
    """A token whose signature held. `claims` once they were read: nobody changes them."""

    __slots__ = ("claims", "issuer", "payload", "secret")

    def __init__(self, issuer: str, secret: str, payload: Mapping[str, Any]) -> None:
        self.issuer = issuer
        self.secret = secret
        self.payload = payload
        self.claims: Claims | None = None


def _genuine(token: str, keys: Mapping[str, str]) -> tuple[str, Mapping[str, Any]]:
    """(issuer, payload) of a token whose signature holds. Raises AuthError."""
    if len(token) > MAX_TOKEN:
        raise AuthError("invalid authorization token")
    try:
        # Read once: which secret it is to be verified with stands in it. What follows is for whoever has signed it.
        read = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise AuthError("invalid authorization token") from None
    algorithm, payload = read["header"].get("alg"), read["payload"]
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS or not _readable(payload):
        raise AuthError("invalid authorization token")
    issuer = payload.get("iss") or ""
    secret = keys.get(issuer)
    if secret is None:
        # Key and secret are easily taken for each other, and then this name is the secret.
        swapped = issuer in keys.values()
        log_as = "invalid API key: it is the secret of a key; are the two swapped?" if swapped else ""
        raise AuthError(f"invalid API key: {issuer[:64]}", log_as=log_as)
    if algorithm != "HS256":
        raise AuthError(f"token signature is invalid: signing method {algorithm} is invalid", echoes_token=True)
    signed = token.rpartition(".")[0]
    if not HS256.verify(signed.encode(), secret.encode(), read["signature"]):
        raise AuthError("token signature is invalid: signature is invalid", echoes_token=True)
    return issuer, payload


def unverified_names(token: str) -> tuple[str, str]:
    """(room, identity) as the token says them, whether it is genuine or not. Never for access."""
    if len(token) > MAX_TOKEN:
        return "", ""
    try:
        payload = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return "", ""
    video, identity = payload.get("video"), payload.get("sub")
    room = video.get("room") if isinstance(video, dict) else None
    return (
        room[:MAX_SHOWN] if isinstance(room, str) else "",
        identity[:MAX_SHOWN] if isinstance(identity, str) else "",
    )


def _check_times(payload: Mapping[str, Any], now_unix: float) -> None:
    expires, not_before = payload.get("exp"), payload.get("nbf")
    if expires is not None and now_unix - LEEWAY >= expires:
        by = f"{now_unix - expires:.0f} s ago"
        raise AuthError("token has invalid claims: token is expired", echoes_token=True, by=by)
    if not_before is not None and now_unix + LEEWAY < not_before:
        by = f"for another {not_before - now_unix:.0f} s"
        raise AuthError("token has invalid claims: token is not valid yet", echoes_token=True, by=by)


def _readable(payload: Mapping[str, Any]) -> bool:
    """The claims that JWT itself defines have its types (RFC 7519 section 4.1). A token without `exp` never expires."""
    audience = payload.get("aud")
    texts = [payload.get(name) for name in ("iss", "sub", "jti")]
    texts += audience if isinstance(audience, list) else [audience]
    times = [payload.get(name) for name in ("exp", "nbf", "iat")]
    return all(text is None or isinstance(text, str) for text in texts) and all(
        at is None or _is_time(at) for at in times
    )


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _claims(issuer: str, payload: Mapping[str, Any]) -> Claims:
    """A claim of a wrong type refuses the token, as Go's decoder does: `canPublish: "false"` must not mean true."""
    video = _typed(payload, "video", dict)
    return Claims(
        api_key=issuer,
        identity=_text(payload, "sub") or _text(payload, "jti"),
        expires_at=math.inf if payload.get("exp") is None else float(payload["exp"]),
        name=_text(payload, "name"),
        kind=_text(payload, "kind") or "standard",
        kind_details=_texts(payload, "kindDetails"),
        metadata=_text(payload, "metadata"),
        attributes=_strings(payload),
        sha256=_text(payload, "sha256"),
        room_config=_room_config(_typed(payload, "roomConfig", dict)),
        room_preset=_text(payload, "roomPreset"),
        video=None if video is None else _video(video),
        sip=_grant(payload, "sip", SipGrant),
        agent=_grant(payload, "agent", AgentGrant),
        inference=_grant(payload, "inference", InferenceGrant),
        observability=_grant(payload, "observability", ObservabilityGrant),
    )


def _video(claim: Mapping[str, Any]) -> VideoGrant:
    values: dict[str, Any] = {}
    for name, attribute in _VIDEO_FIELDS.items():
        if claim.get(name) is None:
            continue
        if attribute in ("room", "destination_room"):
            values[attribute] = _text(claim, name)
        elif attribute == "can_publish_sources":
            values[attribute] = tuple(item.lower() for item in _texts(claim, name))
        else:
            values[attribute] = _typed(claim, name, bool)
    values.setdefault("can_publish_data", values.get("can_publish", True))
    return VideoGrant(**values)


G = TypeVar("G")
T = TypeVar("T")


def _grant(payload: Mapping[str, Any], name: str, cls: Callable[..., G]) -> G | None:
    claim = _typed(payload, name, dict)
    if claim is None:
        return None
    fields = _OTHER_FIELDS[name].items()
    return cls(**{attribute: _typed(claim, key, bool) or False for key, attribute in fields})


def _typed(payload: Mapping[str, Any], name: str, kind: type[T]) -> T | None:
    """None for what is absent or null. Raises AuthError."""
    value = payload.get(name)
    if value is not None and not isinstance(value, kind):
        raise AuthError(f"token is malformed: could not JSON decode claim: {name}", echoes_token=True)
    return value


def _text(payload: Mapping[str, Any], name: str) -> str:
    return _clean(_typed(payload, name, str) or "")


def _clean(text: str) -> str:
    """JSON can escape half of a surrogate pair, which UTF-8 cannot say."""
    return text.encode("utf-8", "replace").decode()


def _texts(payload: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = _typed(payload, name, list) or []
    return tuple(_text({name: value}, name) for value in values)


def _strings(payload: Mapping[str, Any]) -> dict[str, str]:
    values = _typed(payload, "attributes", dict) or {}
    return {_clean(key): _text(values, key) for key in values}


def _room_config(value: dict[str, Any] | None) -> room.RoomConfiguration | None:
    """Raises AuthError."""
    if value is None:
        return None
    config = room.RoomConfiguration()
    try:
        ParseDict(value, config, ignore_unknown_fields=True, max_recursion_depth=32)
    except (ParseError, ValueError, TypeError, AttributeError):
        raise AuthError("token is malformed: could not JSON decode claim: roomConfig", echoes_token=True) from None
    return config


# -- what a grant means


def to_participant_permission(video: VideoGrant | None) -> models.ParticipantPermission:
    """The permission that clients see."""
    grant = video or VideoGrant()
    return models.ParticipantPermission(
        can_subscribe=grant.can_subscribe,
        can_publish=grant.can_publish,
        can_publish_data=grant.can_publish_data,
        # A name that nobody knows must not vanish: an empty list means every source.
        can_publish_sources=[SOURCES.get(name, models.TrackSource.UNKNOWN) for name in grant.can_publish_sources],
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
    kind_details: Iterable[str] = (),
    ttl: float = DEFAULT_LIFE,
    room_config: Mapping[str, object] | None = None,
    room_preset: str = "",
    sha256: str = "",
    grants: Mapping[str, Mapping[str, bool]] | None = None,
) -> str:
    """A signed token. `video` and the other `grants` ({"sip": {"admin": True}}) take either spelling.

    `room_config` is protojson, `sha256` the base64 digest of a webhook's body. Raises ValueError for unknown grants and
    for values of a type that no server would take.
    """
    optional: dict[str, object] = {
        "sub": identity,
        "name": name,
        "metadata": metadata,
        "attributes": dict(attributes or {}),
        "kind": kind,
        "kindDetails": list(kind_details),
        "roomConfig": dict(room_config or {}),
        "roomPreset": room_preset,
        "sha256": sha256,
    }
    payload = _payload(api_key, now_unix, ttl, optional)
    if video is not None:
        payload["video"] = _spelled(video, _CAMEL)
    for key, grant in (grants or {}).items():
        if key not in _OTHER_FIELDS:
            raise ValueError(f"unknown kind of grant {key!r}; known are video, {', '.join(_OTHER_FIELDS)}")
        payload[key] = _spelled(grant, {snake: camel for camel, snake in _OTHER_FIELDS[key].items()})
    try:
        _claims(api_key, payload)
    except AuthError as error:
        raise ValueError(str(error)) from None
    return _signed(payload, secret)


def _payload(api_key: str, now_unix: float, ttl: float, optional: Mapping[str, object]) -> dict[str, object]:
    """Claims; of `optional` those that say something."""
    payload: dict[str, object] = {"iss": api_key, "nbf": int(now_unix), "exp": int(now_unix + ttl)}
    payload.update({key: value for key, value in optional.items() if value})
    return payload


def _signed(payload: Mapping[str, object], secret: str) -> str:
    """HS256 (RFC 7515 section 3.1). PyJWT looks at the key for longer than it signs; refresh tokens are many."""
    text = _JWT_HEADER + urlsafe_b64encode(_compact(payload).encode()).rstrip(b"=")
    digest = hmac.digest(secret.encode(), text, "sha256")
    return (text + b"." + urlsafe_b64encode(digest).rstrip(b"=")).decode()


def _spelled(grant: Mapping[str, object], camel: Mapping[str, str]) -> dict[str, object]:
    spelled = {camel.get(key, key): value for key, value in grant.items()}
    unknown = spelled.keys() - set(camel.values())
    if unknown:
        raise ValueError(f"unknown grant {min(unknown)!r}; known are {', '.join(sorted(camel))}")
    return spelled


def issue_refresh_token(claims: Claims, info: models.ParticipantInfo, keys: Mapping[str, str], now_unix: float) -> str:
    """A token for reconnects: at least ten minutes, with the permissions, name and metadata as they are now."""
    permission = info.permission
    base = claims.video or VideoGrant()
    video = {camel: value for snake, camel in _CAMEL.items() if (value := getattr(base, snake))} | {
        "roomJoin": True,
        "canPublish": permission.can_publish,
        "canSubscribe": permission.can_subscribe,
        "canPublishData": permission.can_publish_data,
        "canPublishSources": [SOURCE_NAMES.get(n, "unknown") for n in permission.can_publish_sources],
        "canUpdateOwnMetadata": permission.can_update_metadata,
        "hidden": permission.hidden,
        "recorder": permission.recorder,
        "agent": permission.agent,
        "canSubscribeMetrics": permission.can_subscribe_metrics,
        "canManageAgentSession": permission.can_manage_agent_session,
    }
    key = claims.api_key if claims.api_key in keys else next(iter(keys))
    optional: dict[str, object] = {
        "sub": info.identity,
        "name": info.name,
        "metadata": info.metadata,
        "attributes": dict(info.attributes),
        "kind": claims.kind if claims.kind != "standard" else "",
        "kindDetails": claims.kind_details,
        "roomConfig": None if claims.room_config is None else MessageToDict(claims.room_config),
        "roomPreset": claims.room_preset,
    }
    life = DEFAULT_LIFE if math.isinf(claims.expires_at) else max(MIN_REFRESH_LIFE, claims.expires_at - now_unix)
    payload = _payload(key, now_unix, life, optional)
    payload["video"] = video
    for name, fields in _OTHER_FIELDS.items():
        grant = getattr(claims, name)
        if grant is not None:
            payload[name] = {camel: getattr(grant, snake) for camel, snake in fields.items()}
    return _signed(payload, keys[key])
