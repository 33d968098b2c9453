"""What one subscriber's downlink has room for: its reports become limits of its rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from actors.messages.participant import StreamStates
from actors.messages.track import LegProbe, LimitLeg
from lkactor.plane import IngressCell
from lkactor.sfu.congestion import CongestionControl

if TYPE_CHECKING:
    from actors.legs import LegTable


class AllocationDesk:
    """The part of a transport actor that keeps what it sends within what arrives. Limits are told again, with each
    look at the rows, until the track has applied them. While something is short every estimate counts."""

    def __init__(
        self,
        rows: LegTable,
        ingress: IngressCell,
        tell_owner: Callable[[StreamStates], None],
        *,
        enabled: bool,
        allow_pause: bool,
        eager: bool,
        now: float,
    ) -> None:
        """`eager`: every report counts, also while nothing is short."""
        self._rows, self._ingress, self._eager = rows, ingress, eager
        ingress.set_eager(eager)
        self._tell_owner = tell_owner
        self._control = CongestionControl(enabled=enabled, allow_pause=allow_pause, now=now)
        self._paused: frozenset[str] = frozenset()
        """Tracks of which the client has been told so."""

    def on_remb(self, bitrate: int, now: float) -> None:
        if self._control.on_remb(bitrate, self._rows.legs(), now):
            self._apply()

    def impose(self, capacity: int, now: float) -> None:
        """Bits per second; 0: whatever the channel has."""
        self._control.observe(self._rows.legs(), now)
        self._control.impose(capacity, now)
        self._apply()

    def set_priority(self, sid: str, priority: int, now: float) -> None:
        self._control.set_priority(sid, priority)
        self._look(now)

    def next_timeout(self) -> float | None:
        return self._control.next_timeout()

    def handle_timeout(self, now: float) -> None:
        due = self._control.next_timeout()
        if due is None or now < due:
            return
        self._control.observe(self._rows.legs(), now)
        self._control.handle_timeout(now)
        self._apply()
        probe = self._control.take_probe()
        if probe is not None:
            leg, octets = probe
            self._rows.feed_back(leg, LegProbe(leg, octets))

    def _look(self, now: float) -> None:
        self._control.observe(self._rows.legs(), now)
        self._apply()

    def _apply(self) -> None:
        self._ingress.set_eager(self._eager or self._control.next_timeout() is not None)
        for leg, limit, halted in self._control.decisions():
            layer, temporal = max(limit.spatial, 0), max(limit.temporal, 0)
            if (leg.limit_layer, leg.limit_temporal, leg.halted) != (layer, temporal, halted):
                self._rows.tell_track(leg.track_id, LimitLeg(leg, layer, temporal, halted))
        self._tell_states()

    def _tell_states(self) -> None:
        """Only held back for want of bandwidth, and no more; muted is neither."""
        tracks = self._control.allocator.tracks
        if not self._paused and not any(track.paused for track in tracks.values()):
            return
        paused = frozenset(sid for sid, track in tracks.items() if track.paused and not track.muted)
        going = {sid for sid in self._paused if sid in tracks and not (tracks[sid].paused or tracks[sid].muted)}
        told = (self._paused - going) & tracks.keys() | paused
        states = tuple((sid, True) for sid in sorted(paused - self._paused))
        states += tuple((sid, False) for sid in sorted(going))
        self._paused = told
        if states:
            self._tell_owner(StreamStates(states))
