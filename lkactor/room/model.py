"""One room: its settings, its life span, what others see of it. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from livekit.protocol import agent_dispatch, models
from livekit.protocol import room as room_api

from lkactor.config import Config, PlayoutDelayConfig
from lkactor.room.sids import new_sid


@dataclass(slots=True)
class RoomModel:
    """Settings and times of a room. Times are seconds, monotonic; `creation_ms` is Unix time."""

    name: str
    sid: str
    creation_ms: int
    created_at: float
    empty_timeout: int
    departure_timeout: int
    max_participants: int
    metadata: str
    turn_password: str
    enabled_codecs: tuple[models.Codec, ...]
    sif_trailer: bytes
    agents: tuple[agent_dispatch.RoomAgentDispatch, ...] = ()
    """Asked for when the room was made; none: any worker without a name."""
    sync_streams: bool = False
    """What somebody's camera and microphone send is one stream to the others, so that their players keep it in step."""
    playout_delay: PlayoutDelayConfig = field(default_factory=PlayoutDelayConfig)
    """How long subscribers hold video back."""
    ever_joined: bool = False
    emptied_at: float | None = None
    version: int = field(default=0)
    _seen: tuple[tuple[int, int, bool, str], models.Room] | None = field(default=None, repr=False, compare=False)
    """What `info` said last, and what it depends on."""

    @classmethod
    def create(
        cls,
        name: str,
        config: Config,
        request: room_api.CreateRoomRequest,
        *,
        now: float,
        unix_ms: int,
        rng: random.Random,
    ) -> RoomModel:
        """A new room: what the request leaves at zero comes from the configuration."""
        return cls(
            name=name,
            sid=new_sid("RM_", rng),
            creation_ms=unix_ms,
            created_at=now,
            empty_timeout=request.empty_timeout or config.room.empty_timeout,
            departure_timeout=request.departure_timeout or config.room.departure_timeout,
            max_participants=request.max_participants or config.room.max_participants,
            metadata=request.metadata,
            turn_password=new_sid("", rng) + new_sid("", rng),
            enabled_codecs=tuple(
                models.Codec(mime=codec.mime, fmtp_line=codec.fmtp_line) for codec in config.room.enabled_codecs
            ),
            sif_trailer=rng.randbytes(25),
            agents=tuple(request.agents),
            sync_streams=request.sync_streams or config.room.sync_streams,
            playout_delay=_playout_delay(request, config),
        )

    def info(self, *, participants: int, publishers: int, recording: bool) -> models.Room:
        """What everybody may see: not to be changed, for as long as nothing has changed it is the same object."""
        depends = (participants, publishers, recording, self.metadata)
        if self._seen is None or self._seen[0] != depends:
            self._seen = depends, self._public(participants, publishers, recording)
        return self._seen[1]

    def _public(self, participants: int, publishers: int, recording: bool) -> models.Room:
        return models.Room(
            sid=self.sid,
            name=self.name,
            empty_timeout=self.empty_timeout,
            departure_timeout=self.departure_timeout,
            max_participants=self.max_participants,
            creation_time=self.creation_ms // 1000,
            creation_time_ms=self.creation_ms,
            turn_password=self.turn_password,
            enabled_codecs=self.enabled_codecs,
            metadata=self.metadata,
            num_participants=participants,
            num_publishers=publishers,
            active_recording=recording,
        )

    def playout_delay_for(self, browser: str) -> PlayoutDelayConfig | None:
        """None: not asked for, or not of this one. Firefox cannot sync streams, so sound would not wait for the
        video (livekit-surface 2.5)."""
        apart = self.sync_streams and browser.lower().startswith("firefox")
        return self.playout_delay if self.playout_delay.enabled and not apart else None

    def joined(self) -> None:
        self.ever_joined = True
        self.emptied_at = None

    def emptied(self, now: float) -> None:
        """The last participant that counts has left."""
        if self.emptied_at is None:
            self.emptied_at = now

    def expires_at(self) -> float | None:
        """When the room is to close if nobody comes; None while somebody is there."""
        if self.emptied_at is not None:
            return self.emptied_at + self.departure_timeout
        if not self.ever_joined:
            return self.created_at + self.empty_timeout
        return None


def _playout_delay(request: room_api.CreateRoomRequest, config: Config) -> PlayoutDelayConfig:
    """Both limits are the request's as soon as it has one of them (livekit-media 4.10)."""
    if request.min_playout_delay or request.max_playout_delay:
        return PlayoutDelayConfig(True, request.min_playout_delay, request.max_playout_delay)
    return config.room.playout_delay
