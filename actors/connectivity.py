"""How a participant's client reaches the server: ICE servers, the kind of candidates, and the next kind when one fails.

The rules are in `lkactor.ice.fallback`; this desk feeds them with what its participant's transports and signalling see.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import proxy

from livekit.protocol import models, rtc
from trio import current_time

from actors.messages.transport import UseCandidates
from lkactor.ice import Fallback, PathKind, Preference, Ways
from lkactor.ice.fallback import SHORT_CONNECTION, tcp_check_timeout
from lkactor.peer import PeerState
from lkactor.signal.client_configuration import client_configuration
from lkactor.signal.ice_servers import ice_servers, turn_over_tls
from lkactor.signal.responses import PING_TIMEOUT

if TYPE_CHECKING:
    from actors.messages.participant import PathMoved, Role, TransportStateChanged
    from actors.participant import ParticipantActor
    from lkactor.config_sections import RtcConfig
    from lkactor.signal.join import JoinParameters

ICE_TCP_SWIFT = (1, 0, 5)
MAX_RTT_MS = 60_000
RESUME_WINDOW = 5.0
"""Seconds in which a client that is back restarts ICE on all its connections."""
FAILED_ROLE: dict[int, Role] = {
    models.ReconnectReason.RR_PUBLISHER_FAILED: "publisher",
    models.ReconnectReason.RR_SUBSCRIBER_FAILED: "subscriber",
}


class ConnectivityDesk:
    """The part of a participant actor that steers its client to paths that work."""

    def __init__(self, participant: ParticipantActor, room: str, parameters: JoinParameters, api_key: str) -> None:
        self._participant: ParticipantActor = proxy(participant)
        self._room = room
        self._client = parameters.client
        # Who has no signalling of LiveKit's cannot be told to come another way.
        self._steers = parameters.server_offers == "never"
        self._api_key = api_key
        now = current_time()
        self._fallback = Fallback(participant.services.ice_memory.recall(room, participant.identity, now))
        self._heard = now
        self._resumed_at = float("-inf")
        self._rtt_ms: int | None = None
        """Of the signal connection; None: not known yet."""
        self._paths: dict[Role, TransportStateChanged] = {}

    # -- what the client is told ------------------------------------------------------------------------------------

    @property
    def fallen_back(self) -> bool:
        """The client's offer may not fit any more: no fast publishing."""
        return self._fallback.preference is not Preference.ANY

    def ice_servers(self) -> list[rtc.ICEServer]:
        services = self._participant.services
        return ice_servers(
            services.config,
            self._participant.sid,
            services.unix(),
            services.candidates,
            api_key=self._api_key,
            tls_only=self._fallback.preference is Preference.TLS,
        )

    def configuration(self) -> models.ClientConfiguration | None:
        return client_configuration(self._client, force_relay=self._fallback.preference is Preference.TLS)

    def candidates(self) -> UseCandidates:
        """Which of our candidates the transports announce."""
        tcp_only = self._config.force_tcp or self._fallback.preference is Preference.TCP
        return UseCandidates(tcp_only, tcp_check_timeout(self._rtt_ms) if tcp_only else None)

    # -- what happens -----------------------------------------------------------------------------------------------

    def heard(self, request: rtc.SignalRequest) -> None:
        """Any word of the client's: its signalling works."""
        self._heard = current_time()
        if request.WhichOneof("message") == "ping_req":
            self._rtt_ms = max(0, min(request.ping_req.rtt, MAX_RTT_MS))

    def transport_changed(self, change: TransportStateChanged) -> bool:
        """False: this failure is the one that the client has just come back from, so it need not be told.

        Two connections that lose the same network do not fail in the same instant, and the second one may do so after
        the resume, but before its ICE restart.
        """
        before = self._paths.get(change.role)
        self._paths[change.role] = change
        if change.state is not PeerState.FAILED:
            return True
        lost = before is not None and before.state in (PeerState.CONNECTED, PeerState.DISCONNECTED)
        if lost and current_time() - self._resumed_at < RESUME_WINDOW:
            return False
        never_by_tcp = change.connected_at is None and self._fallback.preference is Preference.TCP
        self._failed(change, short=never_by_tcp or self._is_short(change))
        return True

    def path_moved(self, moved: PathMoved) -> None:
        change = self._paths.get(moved.role)
        if change is not None:
            self._paths[moved.role] = replace(change, path=moved.path)

    def resumed(self, reason: int) -> None:
        """The client is back. If a connection had failed for it before it did for us, this is when we learn of it."""
        self._resumed_at = current_time()
        role = FAILED_ROLE.get(reason)
        change = self._paths.get(role) if role is not None else None
        moved = self._fallback.moved
        self._fallback.resumed()
        if change is not None and not moved and self._is_short(change):
            self._failed(change, short=True)
            moved = self._fallback.moved
            self._fallback.resumed()
        if moved:  # What failed is dealt with: the next attempt's failure is its own.
            self._paths = {role: replace(change, connected_at=None) for role, change in self._paths.items()}
        self._participant.tell_transports(self.candidates())

    def switch(self, protocol: int) -> None:
        """SimulateScenario: as if the others had failed. Remembered for the client's next session, too."""
        self._fallback.set(Preference(protocol))
        self._changed("asked for")

    # -- inside -----------------------------------------------------------------------------------------------------

    @property
    def _config(self) -> RtcConfig:
        return self._participant.services.config.rtc

    def _is_short(self, change: TransportStateChanged) -> bool:
        return change.connected_at is not None and current_time() - change.connected_at < SHORT_CONNECTION

    def _failed(self, failed: TransportStateChanged, *, short: bool) -> None:
        if not self._config.allow_tcp_fallback or not self._steers or self._participant.left:
            return
        now = current_time()
        if not self._participant.has_signal or now - self._heard >= PING_TIMEOUT:
            self._fallback.interrupted()
            return
        worst = self._worst_path(failed)
        if self._fallback.failed(worst, self._ways(), short=short, now=now):
            self._changed(f"{worst.name.lower()} failed")

    def _worst_path(self, failed: TransportStateChanged) -> PathKind:
        """Of what failed and what is about to. The reference counts a connection that is well, too; but a browser may
        have moved that one to TCP by itself, which is no reason to give TCP up for the other.
        """
        ill = (change for change in self._paths.values() if change.state is not PeerState.CONNECTED)
        return max((failed.path, *(change.path for change in ill)))

    def _ways(self) -> Ways:
        services = self._participant.services
        threshold = self._config.tcp_fallback_rtt_threshold
        tcp = any(candidate.transport == "tcp" for candidate in services.candidates)
        return Ways(
            tcp=tcp and _speaks_ice_tcp(self._client) and (threshold == 0 or (self._rtt_ms or 0) < threshold),
            tls=turn_over_tls(services.config),
        )

    def _changed(self, why: str) -> None:
        participant, preference = self._participant, self._fallback.preference
        participant.services.ice_memory.remember(self._room, participant.identity, preference, current_time())
        participant.log("ice.preference", f"{preference.name.lower()}: {why}")
        participant.tell_transports(self.candidates())


def _speaks_ice_tcp(client: models.ClientInfo) -> bool:
    """Go's SDK opens no TCP connections, Swift's does from 1.0.5 on."""
    sdk = models.ClientInfo.SDK
    if client.sdk == sdk.SWIFT:
        parts = client.version.partition("-")[0].split(".")
        return tuple(int(p) if p.isascii() and p.isdigit() and len(p) < 6 else 0 for p in parts) >= ICE_TCP_SWIFT
    return client.sdk != sdk.GO
