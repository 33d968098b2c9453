"""One published track: owns the fan-out. Restarts in place: its legs come back from their transports, with their
numbers, and a key frame is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from livekit.protocol import models
from trio import current_time, sleep_forever

from actors.egress import TransportEgress
from actors.kernel import Actor, ActorDead, ActorRef, MailboxFull, MediaLink, Timer
from actors.messages.participant import (
    AudioLevelChanged,
    ParticipantMessage,
    UplinkQuality,
    WantedAudioCodecs,
    WantedQualityChanged,
)
from actors.messages.track import (
    AddCodec,
    AddLeg,
    LegKeyFrameRequest,
    LegNack,
    LegProbe,
    LegReport,
    LegSettings,
    LimitLeg,
    MediaBurst,
    PlaneNews,
    PublisherReport,
    QualityWindow,
    RemoveCodec,
    RemoveLeg,
    SetPublisherMuted,
    TrackMessage,
    TrackTick,
)
from lkactor.config import AudioConfig, RtcConfig
from lkactor.media_metrics import MediaMetrics
from lkactor.plane import Plane
from lkactor.room.speakers import AudioLevel
from lkactor.sdp import ReceiveMedia
from lkactor.sfu import Renditions, format_of, formats_of
from lkactor.sfu.dynacast import PAUSE_DELAY, Dynacast
from lkactor.sfu.quality import WINDOW, StreamScore, loss_weight
from lkactor.wire import extensions
from lkactor.wire.rtp import RtpPacket


@dataclass(frozen=True, slots=True)
class TrackSpec:
    """All that a track needs to start, and to start again."""

    info: models.TrackInfo
    media: ReceiveMedia
    """Of the primary codec; a backup comes and goes by message."""
    egress: TransportEgress
    """Of the publisher: feedback goes there."""
    owner: ActorRef[ParticipantMessage]
    audio: AudioConfig
    rtc: RtcConfig
    plane: Plane
    pause_delay: float = PAUSE_DELAY
    """Dynacast, seconds."""
    metrics: MediaMetrics | None = None


class TrackActor(Actor[TrackMessage]):
    """Media and feedback come on links, a burst at a time; the rest is control."""

    patient = True

    def __init__(self, spec: TrackSpec) -> None:
        self._spec = spec
        throttle = spec.rtc.pli_throttle
        video = spec.media.kind == "video"
        self._history = spec.rtc.packet_buffer_size_video if video else spec.rtc.packet_buffer_size_audio
        self._throttle = (throttle.low_quality, throttle.mid_quality, throttle.high_quality)
        formats = formats_of(spec.info, spec.media, history=self._history, throttle=self._throttle)
        self._lock = spec.plane.lock
        """Rows and streams are touched with it in hand: the plane runs packets through them meanwhile."""
        self._renditions = Renditions(formats, spec.plane.fanout)
        self._renditions.set_publisher(spec.egress)
        self._audio_codecs: tuple[str, ...] = ()
        """Asked for so far, of an audio track of several codecs."""
        self._settings: dict[str, LegSettings] = {}
        self._timer: Timer | None = None
        self._timer_at = float("inf")
        self._level = AudioLevel(spec.audio)
        self._level_told = 0.0
        self._level_id = spec.media.extensions.get(extensions.AUDIO_LEVEL, 0)
        self._clock_rate = spec.media.codecs[0].clock_rate if spec.media.codecs else 48000
        self._last_timestamp: int | None = None
        self._dynacast: Dynacast | None = None
        mime = spec.media.codecs[0].mime if spec.media.codecs else ""
        self._score = StreamScore(loss_weight(spec.media.kind, mime))
        self._metrics = spec.metrics
        self._measure_latency = True
        """With the next burst; once a window."""

    async def started(self) -> None:
        renditions = self._renditions
        self.context.start_soon(self._keep_plane)
        with self._lock:
            renditions.set_muted(self._spec.info.muted, current_time())
        if self._spec.media.kind == "video":
            self._dynacast = Dynacast(renditions.codecs, pause_delay=self._spec.pause_delay)
            self._dynacast.add_codec(renditions.codecs[0], current_time())
            self._dynacast.set_muted(self._spec.info.muted)
        self.context.schedule(WINDOW, QualityWindow())
        self._schedule(current_time())

    async def _keep_plane(self) -> None:
        """As long as this incarnation lives, also when it is killed, packets may go past it."""
        metrics, sid = self._metrics, self._spec.info.sid
        if metrics is not None:
            metrics.began(self._spec.info)
        try:
            await sleep_forever()
        finally:
            with self._lock:
                self._renditions.close()
            if metrics is not None:
                metrics.sample(sid, self._renditions)
                metrics.ended(sid)

    async def receive(self, message: TrackMessage) -> object:
        with self._lock:
            self._receive(message)
        return None

    def _receive(self, message: TrackMessage) -> None:
        now, renditions = current_time(), self._renditions
        match message:
            case AddLeg(leg=leg):
                renditions.add_leg(leg, now)
                self._measure_latency = True
                if self._metrics is not None:
                    self._metrics.leg_added(self._spec.info.sid, leg)
                settings = self._settings.get(leg.subscriber)
                if settings is not None:
                    self._apply(settings, now)
            case RemoveLeg(leg=leg):
                if self._metrics is not None:
                    self._metrics.leg_removed(self._spec.info.sid, leg, renditions.of(leg).clock_rate)
                renditions.remove_leg(leg)
                self._settings.pop(leg.subscriber, None)
            case LegSettings():
                self._settings[message.subscriber] = message
                self._apply(message, now)
            case LimitLeg(leg=leg, layer=layer, temporal=temporal, halted=halted):
                renditions.set_limit(leg, layer, temporal, halted, now)
            case SetPublisherMuted(muted=muted):
                renditions.set_muted(muted, now)
                if self._dynacast is not None:
                    self._dynacast.set_muted(muted)
                if muted:
                    self._tell_level(0.0)
                    self._rest()
            case AddCodec() | RemoveCodec():
                self._on_codec(message, now)
            case TrackTick():
                self._timer, self._timer_at = None, float("inf")
                renditions.handle_timeout(now)
                if self._dynacast is not None:
                    self._dynacast.handle_timeout(now)
                if self._level_told and self._level.level(now) == 0.0:
                    self._tell_level(0.0)
            case QualityWindow():
                self.context.schedule(WINDOW, message)
                self._end_window(now)
                self._measure_latency = True
                self._take_latency()
                if self._metrics is not None:
                    self._metrics.sample(self._spec.info.sid, self._renditions)
            case _:
                raise TypeError(f"unexpected {type(message).__name__}")
        self._announce_wish(now)
        self._schedule(now)

    def receive_media(self, link: MediaLink) -> None:
        with self._lock:
            self._receive_media(link, current_time())

    def _receive_media(self, link: MediaLink, now: float) -> None:
        renditions = self._renditions
        for item in link.drain():
            match item:
                case MediaBurst(layer=layer, packets=packets, codec=codec):
                    renditions.receive(codec, layer, packets, now)
                    if self._measure_latency:
                        self._measure(packets[0].arrival)
                    if self._level_id and not codec:
                        self._observe_levels(packets, now)
                case PlaneNews():
                    renditions.note_losses()
                    self._take_levels(now)
                case PublisherReport(layer=layer, report=report, arrival=arrival, codec=codec):
                    forwarder = renditions.forwarder(codec)
                    if forwarder is not None:
                        forwarder.on_sender_report(layer, report, arrival, now)
                case LegNack(leg=leg, sequences=sequences):
                    renditions.of(leg).on_nack(leg, sequences, now)
                case LegProbe(leg=leg, octets=octets):
                    renditions.of(leg).on_probe(leg, octets, now)
                case LegKeyFrameRequest(leg=leg):
                    renditions.of(leg).on_key_frame_request(leg, now)
                case LegReport(leg=leg, block=block):
                    renditions.of(leg).on_report_block(leg, block, now)
                case _:
                    raise TypeError(f"unexpected {type(item).__name__}")
        self._schedule(now)

    def _measure(self, arrival: float) -> None:
        """How long a packet has taken from the socket to the sockets."""
        self._measure_latency = False
        if self._metrics is not None and self._renditions.legs:
            self._metrics.latency(current_time() - arrival)

    def _take_latency(self) -> None:
        """The same of packets that this actor has not seen."""
        for forwarder in self._renditions:
            for receiver in forwarder.receivers:
                latency = receiver.take_latency()
                if latency and forwarder.legs and self._metrics is not None:
                    self._metrics.latency(latency)

    def _apply(self, settings: LegSettings, now: float) -> None:
        for leg in self._renditions.legs:
            if leg.subscriber == settings.subscriber:
                self._renditions.set_paused(leg, settings.disabled, now)
                wanted = (settings.quality, settings.width, settings.height)
                self._renditions.set_wanted(leg, *wanted, now, settings.fps)

    def _on_codec(self, message: AddCodec | RemoveCodec, now: float) -> None:
        """A backup codec comes or goes. Legs that move keep what their subscribers asked for."""
        renditions, codec = self._renditions, message.codec
        if isinstance(message, RemoveCodec):
            renditions.remove_codec(codec, now)
            if self._dynacast is not None:
                self._dynacast.remove_codec(codec)
        else:
            spec = self._spec
            format = format_of(
                spec.info, message.media, history=self._history, throttle=self._throttle, layers=message.layers
            )
            if renditions.add_codec(codec, format):
                if message.regress:
                    renditions.regress(codec, now)
                if self._dynacast is not None:
                    self._dynacast.add_codec(codec, now)
        for settings in self._settings.values():
            self._apply(settings, now)

    def _announce_wish(self, now: float) -> None:
        """Dynacast: the publisher hears which qualities of which codec are of use to somebody."""
        renditions, sid = self._renditions, self._spec.info.sid
        if self._dynacast is None:
            needed = tuple(c for c in renditions.codecs if c in self._audio_codecs or renditions.serves(c))
            if len(renditions.codecs) > 1 and needed != self._audio_codecs:
                self._audio_codecs = needed
                self._tell_owner(WantedAudioCodecs(sid, needed))
            return
        primary = renditions.codecs[0]
        for codec, quality in renditions.wanted().items():
            settled = renditions.serves(codec) or (codec == primary and bool(self._settings))
            self._dynacast.want(codec, quality, now, settled=settled)
        wanted = self._dynacast.take()
        if wanted is not None:
            self._tell_owner(WantedQualityChanged(sid, wanted))

    def _end_window(self, now: float) -> None:
        """Quality of the uplink. A track that nobody wants may be silent for good reason: dynacast asked for it."""
        unwanted = self._dynacast is not None and max(self._renditions.wanted().values()) < 0
        if self._renditions.muted or unwanted:
            self._rest()
            return
        expected, lost = self._renditions.uplink_window(now)
        self._tell_owner(UplinkQuality(self._spec.info.sid, self._score.window(expected, lost)))

    def _rest(self) -> None:
        self._score.rest()
        self._tell_owner(UplinkQuality(self._spec.info.sid, None))

    def _tell_owner(self, message: WantedQualityChanged | WantedAudioCodecs | UplinkQuality) -> None:
        try:
            self._spec.owner.tell(message)
        except (MailboxFull, ActorDead):
            self._renditions.counters.count("track.owner_unreachable")

    def _observe_levels(self, packets: list[RtpPacket], now: float) -> None:
        for packet in packets:
            value = packet.extension(self._level_id) if not packet.rest else None
            level = extensions.audio_level(value) if value is not None else None
            if level is not None:
                self._observe_level(packet.timestamp, level[0], now)

    def _take_levels(self, now: float) -> None:
        """Of packets that this actor has not seen."""
        for receiver in self._renditions.primary.receivers:
            for timestamp, level in receiver.take_levels():
                self._observe_level(timestamp, level, now)

    def _observe_level(self, timestamp: int, level: int, now: float) -> None:
        last, self._last_timestamp = self._last_timestamp, timestamp
        duration = ((timestamp - last) & 0xFFFFFFFF) / self._clock_rate if last is not None else 0.02
        if 0 < duration < 1 and self._level.observe(level, duration, now):
            self._tell_level(self._level.level(now))

    def _tell_level(self, level: float) -> None:
        if level == self._level_told:
            return
        self._level_told = level
        try:
            self._spec.owner.tell(AudioLevelChanged(self._spec.info.sid, level))
        except MailboxFull:
            self._level_told = -1.0  # Told again with the next window.

    def _schedule(self, now: float) -> None:
        deadlines = (self._renditions.next_timeout(), self._dynacast.next_timeout() if self._dynacast else None)
        deadline = min((at for at in deadlines if at is not None), default=None)
        if deadline is None or deadline >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self.context.schedule(max(0.0, deadline - now), TrackTick())
