"""What the server says, by the client's protocol."""

import pytest
from livekit.protocol import models, rtc

from lkactor.signal import responses

Action = rtc.LeaveRequest.Action
REASON = models.DisconnectReason.STATE_MISMATCH


@pytest.mark.parametrize(
    ("protocol", "action", "told"),
    [
        (13, Action.RECONNECT, rtc.LeaveRequest(reason=REASON, action=Action.RECONNECT)),
        (17, Action.RESUME, rtc.LeaveRequest(reason=REASON, action=Action.RESUME)),
        (13, Action.DISCONNECT, rtc.LeaveRequest(reason=REASON)),
        (12, Action.RECONNECT, rtc.LeaveRequest(reason=REASON, can_reconnect=True)),
        (12, Action.DISCONNECT, rtc.LeaveRequest(reason=REASON)),
        (0, Action.RECONNECT, rtc.LeaveRequest(reason=REASON, can_reconnect=True)),
    ],
)
def test_leave(protocol: int, action: int, told: rtc.LeaveRequest) -> None:
    assert responses.leave(REASON, action, protocol).leave == told
