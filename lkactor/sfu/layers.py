"""Spatial layers: which rid is which, which one a subscriber's wish means, when to switch.

Source: livekit-media 3.1, 4.2, 4.14.

Layers count from 0, the smallest. Qualities are LiveKit's: LOW 0, MEDIUM 1, HIGH 2, OFF 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from livekit.protocol import models

from lkactor.sdp import ReceiveMedia

MAX_LAYERS = 3
RID_ORDERS = (("q", "h", "f"), ("2", "1", "0"))
DIMENSION_SLACK = 0.9


def layers_of(info: models.TrackInfo, media: ReceiveMedia) -> Mapping[str, int]:
    """rid -> layer for the rids of a section; empty without simulcast. Unknown names rank in the order offered."""
    rids = list(media.rids)[:MAX_LAYERS]
    for order in RID_ORDERS:
        if rids and all(rid in order for rid in rids):
            rids.sort(key=order.index)
            break
    return {rid: index for index, rid in enumerate(rids)}


def layer_for_quality(quality: int, layers: Sequence[models.VideoLayer]) -> int:
    """The layer that carries `quality`: its rank among the announced ones, the best below it otherwise."""
    qualities = sorted({layer.quality for layer in layers if layer.quality != models.VideoQuality.OFF})
    if not qualities:
        return min(max(quality, 0), MAX_LAYERS - 1)
    at_most = [index for index, known in enumerate(qualities) if known <= quality]
    return at_most[-1] if at_most else 0


def layer_for_dimensions(width: int, height: int, layers: Sequence[models.VideoLayer]) -> int:
    """The first layer that is large enough for a view of this size, with 10 % slack.

    Heights are compared, of an upright source widths. Of layers of equal size the better one counts.
    """
    ranked = sorted(layers, key=lambda layer: layer.quality)
    if not ranked:
        return 0
    upright = ranked[-1].width < ranked[-1].height
    wanted = (width if upright else height) * DIMENSION_SLACK
    sizes = [layer.width if upright else layer.height for layer in ranked]
    for index, size in enumerate(sizes):
        if size >= wanted and (index + 1 == len(sizes) or sizes[index + 1] != size):
            return index
    return len(ranked) - 1


def effective_target(target: int, live: Sequence[bool]) -> int:
    """What of the wish can be had now: the best live layer up to the target, else the lowest live one; -1: none."""
    below = [index for index, alive in enumerate(live) if alive and index <= target]
    if below:
        return below[-1]
    return next((index for index, alive in enumerate(live) if alive), -1)


def takes_keyframe(layer: int, current: int, target: int) -> bool:
    """Is a key frame of `layer` a step towards `target`? Any will do to start with; after that strictly closer ones."""
    if current < 0:
        return layer <= target
    if target > current:
        return current < layer <= target
    return target <= layer < current
