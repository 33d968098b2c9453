"""The token that a client reconnects with: told at the start, when it grows old, and when what it says has changed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import proxy

from livekit.protocol import rtc
from trio import current_time

from lkactor.auth import Claims, issue_refresh_token

if TYPE_CHECKING:
    from actors.participant import ParticipantActor

REFRESH = "refresh"
"""The name of this desk's timer."""
INTERVAL = 300.0
"""Seconds until a token is too old."""
PACE, AHEAD = 0.1, 1.0
"""Seconds between two of them, and how much of that may be taken in advance: who is changed a hundred times a second is
told of it each time, but of the token, which only a reconnect reads, ten times."""


class TokenDesk:
    """The part of a participant actor that issues its client's tokens."""

    def __init__(self, participant: ParticipantActor, claims: Claims) -> None:
        """`claims`: of the token it came with."""
        self._participant: ParticipantActor = proxy(participant)
        self._claims = claims
        self._paid = float("-inf")
        """Until when, at one in PACE, what has been told is enough."""
        self._soon = False
        """One is scheduled to follow within PACE."""

    def refresh(self) -> None:
        """Tell the client: at once, or of too many within PACE."""
        wait = self._paid - AHEAD - current_time()
        if wait <= 0:
            self._tell()
        elif not self._soon:
            self._soon = True
            self._participant.start_timer(REFRESH, wait)

    def on_timer(self, what: str) -> bool:
        """False: it is somebody else's."""
        if what == REFRESH:
            self._tell()
        return what == REFRESH

    def _tell(self) -> None:
        self._paid, self._soon = max(self._paid, current_time()) + PACE, False
        self._participant.send(rtc.SignalResponse(refresh_token=self.issue()))
        self._participant.start_timer(REFRESH, INTERVAL)

    def issue(self, room: str = "") -> str:
        """For this session as it is now; for another room if one is named."""
        services, claims = self._participant.services, self._claims
        if room and claims.video is not None:
            claims = replace(claims, video=replace(claims.video, room=room))
        info = self._participant.model.info((), ())
        return issue_refresh_token(claims, info, services.config.keys, services.unix())
