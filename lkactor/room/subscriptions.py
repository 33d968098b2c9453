"""Which tracks a participant is to receive: what there is, what it asked for, what it may have. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Generic, Protocol, TypeVar

MAX_REMEMBERED_WISHES = 2000
"""A wish may come before its track. More than this are forgotten, oldest first."""


class Subscribable(Protocol):
    """What this model needs to know of a track."""

    @property
    def sid(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def publisher_identity(self) -> str: ...
    @property
    def allowed(self) -> frozenset[str] | None: ...


T = TypeVar("T", bound=Subscribable)


class Subscriptions(Generic[T]):
    """Available tracks, wishes and permissions of one subscriber."""

    def __init__(
        self,
        *,
        identity: str,
        auto_subscribe: bool,
        can_subscribe: bool,
        exempt: bool,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        """`limits`: the most tracks of a kind, "audio" or "video"; 0 is none."""
        self._identity = identity
        self._limits = limits or {}
        self.auto_subscribe = auto_subscribe
        self.can_subscribe = can_subscribe
        self._exempt = exempt
        """Recorders and egress see every track whatever its publisher allows (livekit-surface 2.5)."""
        self.available: dict[str, T] = {}
        self._wishes: dict[str, bool] = {}

    def publish(self, tracks: Iterable[T]) -> None:
        for track in tracks:
            self.available[track.sid] = track

    def withdraw(self, sids: Iterable[str]) -> None:
        for sid in sids:
            self.available.pop(sid, None)
            self._wishes.pop(sid, None)

    def wish(self, sids: Iterable[str], subscribe: bool) -> None:
        """UpdateSubscription: counts for tracks that are still to come, too."""
        for sid in sids:
            self._wishes.pop(sid, None)
            self._wishes[sid] = subscribe
            if len(self._wishes) > MAX_REMEMBERED_WISHES:
                del self._wishes[next(iter(self._wishes))]

    def wished(self, sid: str) -> bool:
        """Asked for by name."""
        return self._wishes.get(sid, False)

    def permitted(self, track: T) -> bool:
        return self._exempt or track.allowed is None or self._identity in track.allowed

    def desired(self) -> list[T]:
        """The tracks asked for by name or received by themselves, permitted or not."""
        return [track for sid, track in self.available.items() if self._wishes.get(sid, self.auto_subscribe)]

    def wanted(self) -> list[T]:
        """The tracks to receive now, in the order in which they were published.

        Beyond a limit the later ones wait until an earlier one goes.
        """
        if not self.can_subscribe:
            return []
        taken: Counter[str] = Counter()
        wanted = []
        for track in self.desired():
            if not self.permitted(track):
                continue
            limit = self._limits.get(track.kind, 0)
            if not limit or taken[track.kind] < limit:
                taken[track.kind] += 1
                wanted.append(track)
        return wanted
