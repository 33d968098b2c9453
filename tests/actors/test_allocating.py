"""Reports of one subscriber become limits of its rows, told until they are applied, and states for its client."""

import pytest
from support.media import Sink, video_leg

from actors.allocating import AllocationDesk
from actors.messages.participant import StreamStates
from actors.messages.track import LegProbe, LimitLeg
from lkactor.plane.cells import NoIngressCell
from lkactor.sfu.leg import MAX_TEMPORAL
from lkactor.sfu.rates import Offer
from lkactor.wire.rtcp import ReportBlock

RATES = ((150_000, 0, 0, 0), (500_000, 0, 0, 0), (1_700_000, 0, 0, 0))


class Rows:
    """Duck-types LegTable; `apply` is what the track actors do with what they were told."""

    def __init__(self, *sids):
        self.rows = []
        self.told, self.probes = [], []
        for number, sid in enumerate(sids):
            leg = video_leg(Sink(), ssrc=100 + 10 * number)
            leg.track_id, leg.offer, leg.abs_send_time_id = sid, Offer(rates=RATES, multiple=True), 3
            leg.report = ReportBlock(1, 0, 0, 0, 0, 0, 0)
            leg.munger.start(5, 0)
            self.rows.append(leg)

    def legs(self):
        return self.rows

    def tell_track(self, sid, message):
        assert isinstance(message, LimitLeg) and message.leg.track_id == sid
        self.told.append((sid, message.layer, message.temporal, message.halted))
        return True

    def feed_back(self, leg, item):
        assert isinstance(item, LegProbe)
        self.probes.append((leg.track_id, item.octets))

    def take(self, *, apply=True):
        told, self.told = self.told, []
        for sid, layer, temporal, halted in told if apply else ():
            leg = next(leg for leg in self.rows if leg.track_id == sid)
            leg.limit_layer, leg.limit_temporal, leg.halted = layer, temporal, halted
        return told


class Ingress(NoIngressCell):
    eager = False

    def set_eager(self, eager):
        self.eager = eager


class Stage:
    def __init__(self, *sids, allow_pause=False, enabled=True, eager=False):
        self.rows = Rows(*sids)
        self.ingress = Ingress()
        self.states = []
        self.desk = AllocationDesk(
            self.rows, self.ingress, self._tell, enabled=enabled, allow_pause=allow_pause, eager=eager, now=0.0
        )

    def _tell(self, message):
        assert isinstance(message, StreamStates)
        self.states.extend(message.states)

    def take_states(self):
        states, self.states = self.states, []
        return states


def test_reports_do_not_wait_long_while_something_is_short():
    stage = Stage("TR_a")
    assert not stage.ingress.eager
    stage.desk.impose(600_000, 0.0)
    assert stage.ingress.eager
    stage.rows.take()
    stage.desk.handle_timeout(stage.desk.next_timeout())
    assert stage.ingress.eager
    stage.desk.impose(0, 1.0)
    assert not stage.ingress.eager
    stage = Stage("TR_a", eager=True)
    stage.desk.set_priority("TR_a", 3, 0.0)
    assert stage.ingress.eager


def test_a_limit_is_told_until_it_is_applied_and_then_no_more():
    stage = Stage("TR_a")
    stage.desk.impose(600_000, 0.0)
    assert stage.rows.take(apply=False) == [("TR_a", 1, MAX_TEMPORAL, False)]
    stage.desk.handle_timeout(stage.desk.next_timeout())
    assert stage.rows.take() == [("TR_a", 1, MAX_TEMPORAL, False)]
    stage.desk.handle_timeout(stage.desk.next_timeout())
    assert stage.rows.take() == []
    assert stage.take_states() == []


def test_the_client_hears_of_a_pause_once_and_of_its_end_once():
    stage = Stage("TR_a", "TR_b", allow_pause=True)
    for now in (0.0, 0.1):
        stage.desk.impose(150_000, now)
        stage.rows.take()
    assert stage.take_states() == [("TR_b", True)]
    for now in (0.2, 0.3):
        stage.desk.impose(0, now)
        stage.rows.take()
    assert stage.take_states() == [("TR_b", False)]


def test_muted_while_paused_is_neither_and_going_again_is_active():
    stage = Stage("TR_a", allow_pause=True)
    stage.desk.impose(1000, 0.0)
    assert stage.take_states() == [("TR_a", True)]
    stage.rows.rows[0].offer = Offer(rates=RATES, multiple=True, muted=True)
    stage.desk.impose(9_000_000, 0.1)
    assert stage.take_states() == []
    stage.rows.rows[0].offer = Offer(rates=RATES, multiple=True)
    stage.desk.impose(9_000_000, 0.2)
    assert stage.take_states() == [("TR_a", False)]


def test_a_track_that_leaves_while_paused_is_forgotten():
    stage = Stage("TR_a", allow_pause=True)
    stage.desk.impose(1000, 0.0)
    stage.take_states()
    gone = stage.rows.rows.pop()
    stage.desk.impose(1000, 0.1)
    assert stage.take_states() == []
    stage.rows.rows.append(gone)
    stage.desk.impose(1000, 0.2)
    assert stage.take_states() == [("TR_a", True)]


def test_priorities_move_the_limits():
    stage = Stage("TR_a", "TR_b")
    stage.desk.impose(700_000, 0.0)
    assert stage.rows.take() == [("TR_a", 1, MAX_TEMPORAL, False), ("TR_b", 0, MAX_TEMPORAL, False)]
    stage.desk.set_priority("TR_b", 200, 0.1)
    assert stage.rows.take() == [("TR_a", 0, MAX_TEMPORAL, False), ("TR_b", 1, MAX_TEMPORAL, False)]


@pytest.mark.parametrize("enabled", [True, False])
def test_falling_estimates_limit_and_then_probe(enabled):
    stage = Stage("TR_a", enabled=enabled)
    for step in range(12):
        stage.desk.on_remb(3_000_000 - 220_000 * step, 0.2 * step)
    stage.rows.take()
    assert stage.rows.rows[0].limit_layer == (1 if enabled else 2)
    for step in range(30):
        stage.desk.on_remb(580_000, 5.0 + 0.5 * step)
    while (at := stage.desk.next_timeout()) is not None and at < 20.0:
        stage.desk.handle_timeout(at)
    assert bool(stage.rows.probes) == enabled
