"""Session descriptions: parsing, answering a peer's offer, offering to a peer."""

from lkactor.fingerprint import Fingerprint
from lkactor.sdp.answerer import Answerer, OfferSummary
from lkactor.sdp.codecs import Codec, SendMedia, pick_codec
from lkactor.sdp.description import MediaSection, SessionDescription
from lkactor.sdp.media import LocalTransport, ReceiveMedia, ReceivePreference, RemoteTransport, SendTrack
from lkactor.sdp.offerer import Offerer

__all__ = [
    "Answerer",
    "Codec",
    "Fingerprint",
    "LocalTransport",
    "MediaSection",
    "OfferSummary",
    "Offerer",
    "ReceiveMedia",
    "ReceivePreference",
    "RemoteTransport",
    "SendMedia",
    "SendTrack",
    "SessionDescription",
    "pick_codec",
]
