"""TrackInfo: what an AddTrackRequest announces, codec by codec, and what is filled in once its media is there. Pure.

| field                                | filled in                                              |
|--------------------------------------|--------------------------------------------------------|
| codecs[].mime_type, cid, layers, mode | by AddTrack; of a backup codec, cid and layers by the   |
|                                      | second AddTrack, which names the track's sid           |
| mid, sdp_cid, rid and spatial layer  | by the section of an offer that carries the codec      |
| version                              | once, with the first of them                           |
| ssrc, repair_ssrc                    | by the description or the first packet of a layer      |

The first codec's mid, mime type and layers are the track's own, for clients that read no `codecs`. Source:
livekit-surface 2.4, livekit-media 2.5 and 3.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from livekit.protocol import models, rtc

from lkactor.sdp import ReceiveMedia
from lkactor.sfu.layers import layers_of

MAX_LAYERS = 3
MAX_CODECS = 2
"""A primary and its backup: what clients know how to send."""
SVC_MIMES = ("video/vp9", "video/av1")
DEFAULT_STREAMS = {
    models.TrackSource.CAMERA: "camera",
    models.TrackSource.MICROPHONE: "camera",
    models.TrackSource.SCREEN_SHARE: "screen",
    models.TrackSource.SCREEN_SHARE_AUDIO: "screen",
}
FALLBACK = {"audio": "audio/opus", "video": "video/vp8"}

Mode = models.VideoLayer.Mode
Policy = models.BackupCodecPolicy


def kind_of(request: rtc.AddTrackRequest) -> str:
    return "audio" if request.type == models.TrackType.AUDIO else "video"


def track_info(request: rtc.AddTrackRequest, sid: str, enabled: Sequence[str] = ()) -> models.TrackInfo:
    """The announced track. `enabled`: mimes in lower case that may be published, the preferred first; empty: all."""
    features = list(dict.fromkeys(request.audio_features))
    _add_feature(features, models.AudioTrackFeature.TF_STEREO, request.stereo)
    _add_feature(features, models.AudioTrackFeature.TF_NO_DTX, request.disable_dtx)
    policy = request.backup_codec_policy
    if request.type == models.TrackType.AUDIO and policy != Policy.REGRESSION:
        policy = Policy.SIMULCAST
    codecs = _codecs(request, enabled)
    return models.TrackInfo(
        sid=sid,
        type=request.type,
        name=request.name,
        muted=request.muted,
        width=request.width,
        height=request.height,
        simulcast=len(codecs[0].layers) > 1 and codecs[0].video_layer_mode != Mode.MULTIPLE_SPATIAL_LAYERS_PER_STREAM,
        disable_dtx=models.AudioTrackFeature.TF_NO_DTX in features,
        source=request.source,
        layers=codecs[0].layers,
        codecs=codecs,
        stereo=models.AudioTrackFeature.TF_STEREO in features,
        disable_red=request.disable_red,
        encryption=request.encryption,
        stream=request.stream or DEFAULT_STREAMS.get(request.source, "unknown"),
        audio_features=features,
        backup_codec_policy=policy,
        packet_trailer_features=dict.fromkeys(request.packet_trailer_features),
    )


def _add_feature(features: list[models.AudioTrackFeature], feature: models.AudioTrackFeature, wanted: bool) -> None:
    if wanted and feature not in features:
        features.append(feature)


def _codecs(request: rtc.AddTrackRequest, enabled: Sequence[str]) -> list[models.SimulcastCodecInfo]:
    """One entry without a mime type for a client that announces none: it is known with the media."""
    kind, found = kind_of(request), dict[str, models.SimulcastCodecInfo]()
    for codec in request.simulcast_codecs:
        mime = allowed_mime(full_mime(codec.codec, kind), kind, enabled)
        if codec.codec and mime not in found and len(found) < MAX_CODECS:
            mode = codec.video_layer_mode
            if kind == "video" and mode == Mode.MODE_UNUSED:
                svc = mime in SVC_MIMES
                mode = Mode.MULTIPLE_SPATIAL_LAYERS_PER_STREAM if svc else Mode.ONE_SPATIAL_LAYER_PER_STREAM
            found[mime] = models.SimulcastCodecInfo(
                mime_type=mime,
                cid=codec.cid,
                layers=sorted_layers(codec.layers or request.layers),
                video_layer_mode=mode,
            )
    if found:
        return list(found.values())
    return [
        models.SimulcastCodecInfo(
            cid=request.cid,
            layers=sorted_layers(request.layers),
            video_layer_mode=Mode.ONE_SPATIAL_LAYER_PER_STREAM,
        )
    ]


def full_mime(name: str, kind: str) -> str:
    """ "VP9" and "video/VP9" are "video/vp9"."""
    name = name.lower()
    return name if name.startswith(f"{kind}/") else f"{kind}/{name}"


def allowed_mime(mime: str, kind: str, enabled: Sequence[str]) -> str:
    """A codec that the room does not take is replaced by the first that it does (livekit-surface 2.4)."""
    if not enabled or mime in enabled:
        return mime
    return next((other for other in enabled if other.startswith(f"{kind}/")), FALLBACK[kind])


def sorted_layers(layers: Iterable[models.VideoLayer]) -> list[models.VideoLayer]:
    """The lowest quality first, three at most."""
    return sorted(layers, key=lambda layer: layer.quality)[:MAX_LAYERS]


def spelled(mime: str) -> str:
    """As registered, "video/VP8": what others are told. Clients compare without regard to case, dashboards do not."""
    kind, _, subtype = mime.partition("/")
    return mime if subtype in ("opus", "red") else f"{kind}/{subtype.upper()}"


def codec_index(info: models.TrackInfo, mime: str) -> int:
    """Which codec of the track this mime (lower case) is; -1: none."""
    return next((index for index, codec in enumerate(info.codecs) if codec.mime_type.lower() == mime), -1)


def announce_backup(info: models.TrackInfo, request: rtc.AddTrackRequest) -> None:
    """A second AddTrack for a known track: its codecs get the cids under which they will be offered."""
    kind = kind_of(request)
    for codec in request.simulcast_codecs:
        index = codec_index(info, full_mime(codec.codec, kind))
        if index < 0:
            continue
        known = info.codecs[index]
        known.cid = codec.cid or request.cid
        if codec.layers:
            del known.layers[:]
            known.layers.extend(sorted_layers(codec.layers))


def bind(info: models.TrackInfo, index: int, section: ReceiveMedia, unix_micro: int) -> None:
    """The media of codec `index` is there."""
    codec = info.codecs[index]
    if index == 0 and section.codecs:
        codec.mime_type = section.codecs[0].mime
    codec.mime_type = spelled(codec.mime_type.lower())
    codec.mid = section.mid
    if section.cid != codec.cid:
        codec.sdp_cid = section.cid
    rids = {layer: rid for rid, layer in layers_of(info, section).items()}
    for position, layer in enumerate(codec.layers):
        layer.spatial_layer = position
        layer.rid = rids.get(position, "")
    if len(rids) > 1:
        info.simulcast = True
    if not rids:
        media = [ssrc for ssrc in section.ssrcs if ssrc not in section.rtx_of]
        if media and codec.layers:
            codec.layers[0].ssrc = media[0]
    if index == 0:
        info.mid, info.mime_type = codec.mid, codec.mime_type
        _share_layers(info)
    if not info.version.unix_micro:
        info.version.unix_micro = unix_micro


def unbind(info: models.TrackInfo, index: int) -> None:
    """The backup codec `index` is sent no more."""
    codec = info.codecs[index]
    codec.mid = codec.cid = codec.sdp_cid = ""


def set_ssrc(info: models.TrackInfo, index: int, layer: int, ssrc: int, repair_ssrc: int) -> bool:
    """A layer's stream is known; 0 leaves a number as it is. False: nothing new."""
    codec = info.codecs[index]
    if layer >= len(codec.layers):
        return False
    found = codec.layers[layer]
    before = (found.ssrc, found.repair_ssrc)
    found.ssrc, found.repair_ssrc = ssrc or found.ssrc, repair_ssrc or found.repair_ssrc
    if index == 0:
        _share_layers(info)
    return before != (found.ssrc, found.repair_ssrc)


def _share_layers(info: models.TrackInfo) -> None:
    del info.layers[:]
    info.layers.extend(info.codecs[0].layers)
