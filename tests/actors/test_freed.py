"""Who leaves is freed by reference counting: nobody has to stop the loop to look for what is left of a participant."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import trio

from actors.kernel.cell import Cell
from actors.participant import ParticipantActor
from actors.room import RoomActor
from actors.track import TrackActor
from actors.transport import TransportActor
from lkactor.cli.sources import DEMO
from lkactor.client.load import Load, LoadPlan, Medium
from lkactor.client.tracks import TrackSpec
from lkactor.media.files import read_media
from lkactor.plane.choice import choose
from lkactor.sfu.forwarder import TrackForwarder
from lkactor.sfu.leg import Leg
from lkactor.testing import LkServer

OURS = (RoomActor, ParticipantActor, TransportActor, TrackActor, Leg, TrackForwarder)
LIMIT = 20.0


@pytest.fixture
def no_collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither CPython's own nor the server's. What there is now is not looked at."""
    gc.collect()
    gc.freeze()
    gc.disable()
    with monkeypatch.context() as patches:
        patches.setattr(gc, "collect", lambda *_: 0)
        yield
    gc.enable()
    gc.unfreeze()


def alive() -> dict[str, int]:
    return dict(Counter(type(thing).__name__ for thing in gc.get_objects() if _ours(thing)))


def _ours(thing: object) -> bool:
    # Not isinstance: that asks a weak proxy of something else for its class.
    if type(thing) is Cell:
        return thing.name.startswith(("PA_", "TR_", "room_"))
    return issubclass(type(thing), OURS)


@pytest.mark.parametrize("plane", ["kernel", "python"])
@pytest.mark.usefixtures("no_collector")
def test_a_room_and_all_that_was_in_it_end_with_those_who_leave(plane: str) -> None:
    if plane == "kernel" and choose("auto").name != "kernel":
        pytest.skip("the C kernel was not built")
    video = read_media(memoryview((DEMO / "demo.ivf").read_bytes()), ".ivf")
    medium = Medium(TrackSpec("video/vp8", "v", 2, video.width, video.height), video, rate=30.0)
    with LkServer(f"room: {{departure_timeout: 1, empty_timeout: 1}}\nforwarding_plane: {plane}") as server:

        def token(identity: str, publishes: bool) -> tuple[str, str]:
            return server.url, server.token(identity, "freed", can_publish=publishes)

        load = Load(LoadPlan([(medium, 2)], 3, joins_per_second=20.0, duration=0.5), token, "udp")
        trio.run(load.run)
        assert load.errors == []
        assert all(subscriber.packets for subscriber in load.subscribers), "nothing was forwarded: no legs to free"
        server.close_room("freed")  # They went without a word.
        deadline = time.monotonic() + LIMIT
        while alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert alive() == {}
