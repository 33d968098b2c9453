"""Labels of data channels: LiveKit's three, and any other."""

from typing import cast

from livekit.protocol import models

from lkactor.peer.channels import LOSSY, RELIABLE, UNLABELLED, DataChannels, as_user_packet
from lkactor.sctp import SctpAssociation


def test_other_labels_are_told_from_livekits_and_from_what_is_not_open() -> None:
    channels, sctp = DataChannels(), cast(SctpAssociation, None)
    for number, label in enumerate((RELIABLE, "pubraw", LOSSY, "another")):
        channels.opened(number, label, sctp, 0.0)
    assert [channels.label_of(n) for n in range(5)] == [RELIABLE, UNLABELLED, LOSSY, UNLABELLED, None]
    assert channels.ready
    channels.closed(1)
    channels.closed(3)
    assert [channels.label_of(n) for n in range(5)] == [RELIABLE, None, LOSSY, None, None]
    assert channels.ready


def test_bare_bytes_become_a_user_packet_of_nobody() -> None:
    packet = models.DataPacket.FromString(as_user_packet(b"\x00bare"))
    assert packet.user.payload == b"\x00bare"
    assert packet.participant_identity == "" and not packet.destination_identities
