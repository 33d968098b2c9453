"""The forwarding plane: receivers, legs, continuity, feedback. Pure; packets in, segments out."""

from lkactor.sfu.format import TrackFormat, format_of
from lkactor.sfu.forwarder import TrackForwarder
from lkactor.sfu.layers import layers_of
from lkactor.sfu.leg import Egress, Leg
from lkactor.sfu.renditions import Renditions, formats_of
from lkactor.sfu.router import RtpRouter
from lkactor.sfu.twcc import TwccRecorder

__all__ = [
    "Egress",
    "Leg",
    "Renditions",
    "RtpRouter",
    "TrackFormat",
    "TrackForwarder",
    "TwccRecorder",
    "format_of",
    "formats_of",
    "layers_of",
]
