"""Stream resets: RE-CONFIG requests and responses (RFC 6525), both directions. One request of ours at a time.

| request of the peer            | our answer                                                             |
|--------------------------------|------------------------------------------------------------------------|
| outgoing SSN reset             | performed; "in progress" until every TSN before it has arrived         |
| the same number again          | the same answer, or how far it is by now (section 5.2.1)               |
| another number than the next   | bad sequence number                                                    |
| incoming SSN reset, SSN/TSN    | denied: a data channel is closed by its outgoing side (RFC 8831 6.7)   |
| add outgoing or incoming       | denied: the number of streams is settled in the INIT                   |
"""

from __future__ import annotations

from lkactor.counters import Counters
from lkactor.sctp import chunks
from lkactor.sctp.chunks import TSN_MASK, ChunkType, ResetOutgoing

PERFORMED, DENIED, BAD_SEQUENCE, IN_PROGRESS = 1, 2, 5, 6
NOTHING_TO_DO = 0
MAX_STREAMS_PER_REQUEST = 256


class StreamReset:
    """Requests in, responses out, and back. Time and retransmission are the association's."""

    def __init__(self, local_tsn: int, peer_tsn: int, counters: Counters) -> None:
        self._next_request = local_tsn
        self._expected = peer_tsn
        self._counters = counters
        self._last_result = NOTHING_TO_DO
        self._deferred: ResetOutgoing | None = None
        self.asked: tuple[int, ...] = ()
        """Streams of our request that waits for its response."""
        self.request: bytes | None = None

    def ask(self, streams: list[int], last_tsn: int) -> bytes:
        """Our request as a whole chunk; also kept in `request` to be sent again."""
        self.asked = tuple(streams[:MAX_STREAMS_PER_REQUEST])
        last_response = (self._expected - 1) & TSN_MASK
        param = ResetOutgoing(self._next_request, last_response, last_tsn & TSN_MASK, self.asked).build()
        self.request = chunks.build_chunk(ChunkType.RE_CONFIG, 0, param)
        return self.request

    def receive_response(self, value: bytes) -> int | None:
        """The result when it answers our request; the caller reads `asked` first. None: it answers nothing."""
        sequence, result = chunks.parse_reconfig_response(value)
        if self.request is None or sequence != self._next_request:
            self._counters.count("sctp.reset_response_unexpected")
            return None
        # Also after "in progress" the next try has a new number: peers answer a repeated one from memory.
        self._next_request = (self._next_request + 1) & TSN_MASK
        self.request = None
        return result

    def receive_request(self, kind: int, value: bytes, cumulative: int) -> tuple[bytes, list[int] | None]:
        """A request parameter. The response parameter and the streams the peer reset now (None: none)."""
        request: ResetOutgoing | None = None
        if kind == chunks.PARAM_RESET_OUTGOING:
            request = chunks.parse_reset_outgoing(value)
        sequence = chunks.parse_request_number(value)
        if sequence == (self._expected - 1) & TSN_MASK:
            return chunks.build_reconfig_response(sequence, self._last_result), None
        if sequence != self._expected:
            self._counters.count("sctp.reset_sequence")
            return chunks.build_reconfig_response(sequence, BAD_SEQUENCE), None
        self._expected = (self._expected + 1) & TSN_MASK
        self._deferred = None
        streams: list[int] | None = None
        if request is not None:
            if _behind(cumulative, request.last_tsn):
                self._deferred = request
                self._last_result = IN_PROGRESS
            else:
                self._last_result, streams = PERFORMED, list(request.streams)
        else:
            self._last_result = DENIED
        return chunks.build_reconfig_response(sequence, self._last_result), streams

    def deferred_due(self, cumulative: int) -> tuple[bytes, list[int]] | None:
        """The reset that waited for its last TSN, once that has arrived."""
        request = self._deferred
        if request is None or _behind(cumulative, request.last_tsn):
            return None
        self._deferred = None
        self._last_result = PERFORMED
        return chunks.build_reconfig_response(request.request, PERFORMED), list(request.streams)


def _behind(cumulative: int, wire_tsn: int) -> bool:
    offset = (wire_tsn - cumulative) & TSN_MASK
    return 0 < offset < chunks.TSN_HALF
