"""The three data channels of LiveKit on one association: which is which, and what waits for them to open.

| label         | ordered | retransmits | carries                       |
|---------------|---------|-------------|-------------------------------|
| `_reliable`   | yes     | unlimited   | DataPacket, kind RELIABLE     |
| `_lossy`      | no      | 0           | DataPacket, kind LOSSY        |
| `_data_track` | no      | 0           | data track frames             |

Source: livekit-media section 1.9. Where the server offers it opens them; where the client offers the client does.
A client may open channels of other labels beside them: what it sends there is no DataPacket but bare bytes, and goes
out to everybody as the payload of a reliable user packet (transport.go, OnDataMessageUnlabeled).
"""

from __future__ import annotations

from livekit.protocol import models

from lkactor.counters import Counters
from lkactor.peer.backlog import WINDOW, DrainRate
from lkactor.sctp import SctpAssociation

RELIABLE, LOSSY, DATA_TRACK = "_reliable", "_lossy", "_data_track"
UNLABELLED = ""
"""What `label_of` says of an open channel with any other label."""
EARLY_DATA_BYTES = 1024 * 1024
"""Reliable data that may wait for the channel to open. Above that the peer has failed, see `send`."""
LOSSY_BUFFER = 256 * 1024
"""Lossy data is worth nothing late: more than this waiting means drop."""
DATA_TRACK_BUFFER = 64 * 1024
"""About 100 ms at 5 Mbit/s (livekit-media 1.9)."""
HIGH_WATER, LOW_WATER = 4 * 1024 * 1024, 1024 * 1024
SHORT_HIGH_WATER, SHORT_LOW_WATER = 16 * 1024, 8 * 1024
"""With a threshold for slow readers: their queue is what they still get before the gap."""


def as_user_packet(payload: bytes) -> bytes:
    """Bare bytes of an unlabelled channel as the DataPacket they travel in. The sender is stamped on it later."""
    return models.DataPacket(user=models.UserPacket(payload=payload)).SerializeToString()


class DataChannels:
    """Labels to channel ids, the early buffer, and the water marks that drive back-pressure.

    `slow_threshold`: bits per second, see `lkactor.peer.backlog`.
    """

    def __init__(self, *, slow_threshold: int = 0) -> None:
        self.counters = Counters()
        self._slow_threshold = slow_threshold
        self._drain = DrainRate()
        self._ids: dict[str, int] = {}
        self._labels: dict[int, str] = {}
        self._early: list[bytes] = []
        self._early_bytes = 0
        self.congested = False

    def open_all(self, sctp: SctpAssociation) -> None:
        """The server's side of the subscriber connection."""
        sctp.open_channel(RELIABLE, ordered=True)
        sctp.open_channel(LOSSY, ordered=False, max_retransmits=0)
        sctp.open_channel(DATA_TRACK, ordered=False, max_retransmits=0)

    @property
    def ready(self) -> bool:
        return RELIABLE in self._ids and LOSSY in self._ids

    def opened(self, channel_id: int, label: str, sctp: SctpAssociation, now: float) -> None:
        if label not in (RELIABLE, LOSSY, DATA_TRACK):
            self.counters.count("data.unlabelled_channel")
            self._labels[channel_id] = UNLABELLED
            return
        self._ids[label] = channel_id
        self._labels[channel_id] = label
        if label == RELIABLE:
            early, self._early, self._early_bytes = self._early, [], 0
            for payload in early:
                sctp.send(channel_id, payload, now=now)

    def closed(self, channel_id: int) -> None:
        label = self._labels.pop(channel_id, None)
        if label is not None and self._ids.get(label) == channel_id:
            del self._ids[label]

    def label_of(self, channel_id: int) -> str | None:
        return self._labels.get(channel_id)

    def send(self, reliable: bool, payload: bytes, sctp: SctpAssociation | None, now: float) -> bool:
        """False: a reliable message could not be kept. The session must end, for nothing accepted may be lost.

        Raises SctpSendBufferFull when the peer does not read.
        """
        channel = self._ids.get(RELIABLE if reliable else LOSSY)
        if channel is not None and sctp is not None:
            if not reliable and sctp.buffered_amount(channel) > LOSSY_BUFFER:
                self.counters.count("data.lossy_dropped")
                return True
            if reliable and self._slow_threshold:
                buffered = sctp.buffered_amount(channel)
                self._drain.sample(buffered, now)
                if buffered > SHORT_HIGH_WATER and self._slow:
                    self.counters.count("data.slow_reader_dropped")
                    return True
                self._drain.queued(len(payload))
            sctp.send(channel, payload, now=now)
            return True
        if not reliable:
            self.counters.count("data.lossy_before_open")
            return True
        if self._early_bytes + len(payload) > EARLY_DATA_BYTES:
            self.counters.count("data.early_buffer_full")
            return False
        self._early.append(payload)
        self._early_bytes += len(payload)
        return True

    def send_track(self, packet: bytes, sctp: SctpAssociation | None, now: float) -> None:
        """A data track packet: dropped, and counted, rather than late."""
        channel = self._ids.get(DATA_TRACK)
        if channel is None or sctp is None:
            self.counters.count("data_track.before_open")
        elif sctp.buffered_amount(channel) > DATA_TRACK_BUFFER:
            self.counters.count("data_track.dropped")
        else:
            sctp.send(channel, packet, now=now)

    @property
    def _slow(self) -> bool:
        rate = self._drain.bits_per_second
        return rate is not None and rate < self._slow_threshold

    def next_timeout(self, now: float) -> float | None:
        """When `water_mark_crossed` must be asked again though nothing happens: a reader that has stopped is slow."""
        return now + WINDOW if self._slow_threshold and self.congested else None

    def water_mark_crossed(self, sctp: SctpAssociation | None, now: float) -> bool:
        """True when `congested` has just changed."""
        channel = self._ids.get(RELIABLE)
        if channel is None or sctp is None:
            return False
        buffered = sctp.buffered_amount(channel)
        if self._slow_threshold:
            self._drain.sample(buffered, now)
            congested = buffered > (SHORT_LOW_WATER if self.congested else SHORT_HIGH_WATER) and not self._slow
        else:
            congested = buffered > (LOW_WATER if self.congested else HIGH_WATER)
        changed = congested != self.congested
        self.congested = congested
        return changed
