"""What a token says, whether it is valid now, and what it cannot be used for. Pure; the secret is optional."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeGuard

import jwt

from lkactor.auth import LEEWAY, AuthError, Claims, VideoGrant, verify

SHORT_SECRET = 32


@dataclass(slots=True)
class TokenReport:
    """`problems` make the token unusable; `lacks` is what it cannot do, and why."""

    payload: dict[str, Any] = field(default_factory=dict)
    verified: bool | None = None
    validity: str = ""
    allows: list[str] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, object]:
        names = ("payload", "verified", "validity", "allows", "lacks", "problems")
        return {"claims" if name == "payload" else name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        signature = {None: "not checked (no secret given)", True: "correct", False: "WRONG"}[self.verified]
        lines = ["claims     " + json.dumps(self.payload, indent=2, ensure_ascii=True).replace("\n", "\n           ")]
        lines += [f"signature  {signature}", f"validity   {self.validity}"]
        lines += [f"allows     {text}" for text in self.allows]
        lines += [f"lacks      {text}" for text in self.lacks]
        lines += [f"problem    {text}" for text in self.problems]
        return "\n".join(lines)


def explain(token: str, secret: str, now_unix: float) -> TokenReport:
    """Never raises for a bad token: what is wrong with it is in the report."""
    report = TokenReport()
    try:
        header = jwt.get_unverified_header(token)
        report.payload = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        report.validity = "unknown"
        report.problems.append("this is no JWT: three parts of base64url text with dots between are expected")
        return report
    if header.get("alg") != "HS256":
        report.problems.append(f"signed with {header.get('alg')!r}: LiveKit servers take HS256 only")
    issuer = report.payload.get("iss")
    if not isinstance(issuer, str) or not issuer:
        report.problems.append("no iss claim: the server looks its API key up there")
    _judge_times(report, now_unix)
    if secret:
        _judge_signature(report, token, secret)
    claims = _read_claims(report)
    if claims is not None:
        _judge_grants(report, claims)
    return report


def _judge_signature(report: TokenReport, token: str, secret: str) -> None:
    try:
        jwt.decode(
            token,
            secret,
            algorithms=["HS256"],
            options={
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_aud": False,
                "verify_sub": False,
                "enforce_minimum_key_length": False,
            },
        )
        report.verified = True
    except jwt.PyJWTError:
        report.verified = False
        report.problems.append("the signature does not fit this secret: wrong key pair, or the token was changed")


def _judge_times(report: TokenReport, now: float) -> None:
    expires, begins = report.payload.get("exp"), report.payload.get("nbf")
    if not _is_time(expires):
        report.validity = "unknown: no exp claim"
        report.problems.append("no exp claim: every server refuses it")
        return
    if _is_time(begins) and begins > now + LEEWAY:
        report.validity = f"begins {_when(begins)}, in {_span(begins - now)}"
        report.problems.append("not valid yet: check the clocks of the token's maker and of the server")
    elif expires <= now - LEEWAY:
        report.validity = f"expired {_when(expires)}, {_span(now - expires)} ago"
        report.problems.append("expired: make a new one (lkactor token create), or check the clocks")
    else:
        report.validity = f"until {_when(expires)}, {_span(max(0.0, expires - now))} from now"


def _is_time(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 250_000_000_000


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _span(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _read_claims(report: TokenReport) -> Claims | None:
    """The claims as a server reads them, whatever the signature: signed anew with a key of our own."""
    key = "k" * SHORT_SECRET
    payload = {**report.payload, "iss": "explain", "exp": 10**11}
    payload.pop("nbf", None)
    try:
        return verify(jwt.encode(payload, key, algorithm="HS256"), {"explain": key}, 0.0)
    except (AuthError, TypeError, ValueError) as error:
        report.problems.append(str(error))
        return None


def _judge_grants(report: TokenReport, claims: Claims) -> None:
    video = claims.video
    if video is None:
        report.lacks.append("everything of RoomService and every join: there is no video grant")
        video = VideoGrant()
    if video.room_join and video.room and claims.identity:
        report.allows.append(f"joining room {video.room!r} as {claims.identity!r}")
        _judge_join(report, video)
    else:
        missing = [
            text
            for text, there in (
                ("video.roomJoin", video.room_join),
                ("video.room", video.room),
                ("sub (the identity)", claims.identity),
            )
            if not there
        ]
        report.lacks.append(f"joining a room: {', '.join(missing)} missing")
    admin = bool(video.room_admin and video.room)
    rights = (
        (video.room_create, "creating and deleting rooms", "video.roomCreate"),
        (video.room_list, "listing rooms", "video.roomList"),
        (admin, f"acting on participants of {video.room!r}", "video.roomAdmin with video.room"),
        (video.room_record, "egress", "video.roomRecord"),
        (video.ingress_admin, "ingress", "video.ingressAdmin"),
    )
    for granted, what, claim in rights:
        if granted:
            report.allows.append(what)
        else:
            report.lacks.append(f"{'acting on participants' if 'acting' in what else what}: needs {claim}")


def _judge_join(report: TokenReport, video: VideoGrant) -> None:
    sources = ", ".join(video.can_publish_sources)
    rights = (
        (video.can_publish, f"publishing {sources or 'any source'}", "publishing: video.canPublish is false"),
        (video.can_subscribe, "subscribing", "subscribing: video.canSubscribe is false"),
        (video.can_publish_data, "sending data", "sending data: video.canPublishData is false"),
    )
    for granted, yes, no in rights:
        (report.allows if granted else report.lacks).append(yes if granted else no)
    if video.hidden:
        report.allows.append("being there unseen (hidden)")
    if not video.can_update_own_metadata:
        report.lacks.append("changing its own metadata: needs video.canUpdateOwnMetadata")
