"""SimulateScenario: what a client may ask the server to go through with it (livekit-surface 2.8)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import proxy

from livekit.protocol import models, rtc

from actors.messages.room import SimulatedSpeaker
from actors.messages.transport import SetChannelCapacity

if TYPE_CHECKING:
    from actors.participant import ParticipantActor

Action = rtc.LeaveRequest.Action
Reason = rtc.RequestResponse.Reason

ON_RESUME_WINDOW = 5.0
"""Seconds in which the next resume is disturbed as asked."""
MAX_SPEAKING = 3600
PROTOCOLS = (rtc.CandidateProtocol.UDP, rtc.CandidateProtocol.TCP, rtc.CandidateProtocol.TLS)


class SimulationDesk:
    """The part of a participant actor that plays faults on request."""

    def __init__(self, participant: ParticipantActor) -> None:
        self._participant: ParticipantActor = proxy(participant)
        self._on_resume = ""

    def run(self, scenario: rtc.SimulateScenario) -> None:
        participant, reasons = self._participant, models.DisconnectReason
        kind = scenario.WhichOneof("scenario")
        participant.log("simulate", kind or "")
        match kind:
            case "speaker_update":
                seconds = float(max(0, min(scenario.speaker_update, MAX_SPEAKING)))
                participant.room.tell(SimulatedSpeaker(participant.sid, 0.9, True))
                participant.start_timer("speaker", seconds)
            case "node_failure" | "migration":
                reason = reasons.SERVER_SHUTDOWN if kind == "node_failure" else reasons.MIGRATION
                participant.end(reason, Action.RECONNECT, send_leave=False, why=kind)
            case "server_leave":
                participant.end(reasons.SERVER_SHUTDOWN, Action.DISCONNECT, send_leave=True, why=kind)
            case "disconnect_signal_on_resume" | "disconnect_signal_on_resume_no_messages":
                self._on_resume = kind
                participant.start_timer("scenario", ON_RESUME_WINDOW)
            case "switch_candidate_protocol" if scenario.switch_candidate_protocol in PROTOCOLS:
                participant.switch_protocol(scenario.switch_candidate_protocol)
            case "subscriber_bandwidth":
                participant.tell_downlink(SetChannelCapacity(max(0, scenario.subscriber_bandwidth)))
            case "leave_request_full_reconnect":
                # The original leaves this one unhandled.
                participant.end(reasons.UNKNOWN_REASON, Action.RECONNECT, send_leave=True, why=kind)
            case None:
                pass  # Or one of a later protocol; the reference is silent, too.
            case _:
                request = rtc.SignalRequest(simulate=scenario)
                participant.refuse(request, Reason.UNCLASSIFIED_ERROR, f"unimplemented: {kind}")

    def refuses_resume(self) -> bool:
        """The new signal connection is to be closed before any answer, once: the reference closes the three attempts
        that it makes of one resume."""
        refused = self._on_resume == "disconnect_signal_on_resume_no_messages"
        if refused:
            self._on_resume = ""
        return refused

    def cuts_after_resume(self) -> bool:
        """The new signal connection is to be closed after the answers, once."""
        cut = self._on_resume == "disconnect_signal_on_resume"
        if cut:
            self._on_resume = ""
        return cut

    def window_over(self) -> None:
        self._on_resume = ""

    def speaking_over(self) -> None:
        self._participant.room.tell(SimulatedSpeaker(self._participant.sid, 0.0, False))
