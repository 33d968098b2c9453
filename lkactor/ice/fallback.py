"""Which paths a client is steered to when its connections fail: UDP, then ICE/TCP, then TURN over TLS.

Source: livekit-media 1.3. A preference holds for both peer connections of a participant, and is remembered for its
identity in its room, so that whoever joins anew begins with what worked.

| preference | what the client is given                                                                           |
|------------|----------------------------------------------------------------------------------------------------|
| ANY        | all candidates, all ICE servers                                                                     |
| TCP        | our TCP candidates only; its own others are dropped, too                                            |
| TLS        | TURN over TLS only, and the order to relay (`ClientConfiguration.force_relay`)                      |

| preference | what the failed path was | next                                                                   |
|------------|--------------------------|------------------------------------------------------------------------|
| ANY        | UDP                      | TCP where client and server speak it, else TLS where there is TURN, else ANY |
| ANY, TCP   | TCP                      | TLS where there is TURN over TLS, else as it is                          |
| any        | a relay                  | as it is: there is nothing more permissive                              |
| TCP        | UDP: TCP never came      | TLS where there is TURN over TLS, else ANY (the reference: always ANY)   |
| TLS        | UDP, TCP: no relay came  | ANY                                                                    |
| any        | none ever                | ANY                                                                    |

A connection that dies young (90 s) moves at once, an older one with the second failure within a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

SHORT_CONNECTION = 90.0
FAILURES, FAILURE_WINDOW = 2, 60.0
MEMORY = 300.0
MAX_REMEMBERED = 10_000
TCP_CHECKS = (5.0, 12.0)
MAX_SIGNAL_RTT_MS = 1000


class Preference(Enum):
    """The values are LiveKit's ICECandidateType, and CandidateProtocol's, where ANY is called UDP."""

    ANY = 0
    TCP = 1
    TLS = 2


class PathKind(IntEnum):
    """The greater, the more a network has to be asked for."""

    NONE = 0
    UDP = 1
    TCP = 2
    RELAY = 3


@dataclass(frozen=True, slots=True)
class Ways:
    """What is there to fall back to: ICE/TCP on both sides, TURN over TLS."""

    tcp: bool
    tls: bool


def next_preference(current: Preference, path: PathKind, ways: Ways) -> Preference:
    """By the second table above."""
    tls_or = Preference.TLS if ways.tls else None
    match path, current:
        case PathKind.RELAY, _:
            return current
        case PathKind.UDP, Preference.ANY:
            return Preference.TCP if ways.tcp else tls_or or Preference.ANY
        case PathKind.TCP, Preference.ANY | Preference.TCP:
            return tls_or or current
        case PathKind.UDP, Preference.TCP:
            return tls_or or Preference.ANY
        case _:
            return Preference.ANY


def tcp_check_timeout(signal_rtt_ms: int | None) -> float | None:
    """Seconds in which ICE/TCP has to connect; None: as long as anything else, for the signal path is that slow."""
    low, high = TCP_CHECKS
    if signal_rtt_ms is None:
        return high
    if signal_rtt_ms >= MAX_SIGNAL_RTT_MS:
        return None
    return min(max(8 * signal_rtt_ms / 1000, low), high)


class Fallback:
    """One participant's preference, and the failures that move it."""

    def __init__(self, preference: Preference = Preference.ANY) -> None:
        self.preference = preference
        self._failures = 0
        self._last = float("-inf")
        self._moved = False
        """What fails until the client is back fails for the same reason."""

    def set(self, preference: Preference) -> None:
        self.preference = preference
        self.resumed()

    def resumed(self) -> None:
        """The client tries again: its next failure counts anew."""
        self._failures, self._last, self._moved = 0, float("-inf"), False

    @property
    def moved(self) -> bool:
        return self._moved

    def interrupted(self) -> None:
        """Signalling is away as well: the whole network failed, not one kind of path."""
        self._failures, self._last = 0, float("-inf")

    def failed(self, path: PathKind, ways: Ways, *, short: bool, now: float) -> bool:
        """True: `preference` is another one now."""
        if self._moved:
            return False
        if not short:
            self._failures += 1
            since, self._last = now - self._last, now
            if self._failures < FAILURES or since > FAILURE_WINDOW:
                return False
        chosen = next_preference(self.preference, path, ways)
        if chosen is self.preference:
            return False
        self.preference, self._moved = chosen, True
        return True


class PreferenceMemory:
    """Preferences by (room, identity), each for five minutes from when it was set."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], tuple[Preference, float]] = {}

    def remember(self, room: str, identity: str, preference: Preference, now: float) -> None:
        self._kept.pop((room, identity), None)
        if preference is Preference.ANY:
            return
        self._forget(now)
        self._kept[room, identity] = (preference, now + MEMORY)

    def recall(self, room: str, identity: str, now: float) -> Preference:
        preference, until = self._kept.get((room, identity), (Preference.ANY, now))
        return preference if now < until else Preference.ANY

    def __len__(self) -> int:
        return len(self._kept)

    def _forget(self, now: float) -> None:
        """What is over; all last equally long, so the oldest are first. One more than fits: the oldest goes."""
        while self._kept:
            oldest = next(iter(self._kept))
            if self._kept[oldest][1] > now and len(self._kept) < MAX_REMEMBERED:
                return
            del self._kept[oldest]
