"""Connection quality: scores of windows, steps, and who is told what (livekit-media 4.15)."""

import pytest
from livekit.protocol import rtc
from support.media import Sink, audio_leg

from lkactor.room.quality import QualityBoard, for_protocol
from lkactor.sfu.downlink import REPORT_TIMEOUT, DownlinkScores
from lkactor.sfu.quality import BEST, FLOOR, Quality, StreamScore, loss_weight, mos, quality_of
from lkactor.wire.rtcp import ReportBlock


def test_no_loss_stays_the_best():
    score = StreamScore(10.0)
    assert [score.window(1000, 0) for _ in range(3)] == [BEST] * 3


def test_it_falls_fast_and_rises_slowly():
    score = StreamScore(loss_weight("video", "video/vp8"))
    fallen = score.window(1000, 50)
    assert fallen == pytest.approx(100 - 0.8 * 50)
    assert score.window(1000, 0) == pytest.approx(fallen + 0.4 * (100 - fallen))


def test_heavy_loss_ends_at_the_floor_and_silence_below_it():
    score = StreamScore(10.0)
    for _ in range(20):
        score.window(100, 90)
    assert score.value == pytest.approx(FLOOR, abs=0.1)
    assert quality_of(score.window(0, 0)) == Quality.POOR
    assert quality_of(score.window(0, 0, reports=False)) == Quality.LOST


def test_repairs_that_come_a_window_late_are_no_gain():
    assert StreamScore(10.0).window(100, -40) == BEST


def test_missing_layers_count():
    assert StreamScore(10.0).window(100, 0, layers_missing=1) == pytest.approx(100 - 0.8 * 35)


@pytest.mark.parametrize(
    ("score", "quality"),
    [(100, Quality.EXCELLENT), (80, Quality.GOOD), (40, Quality.POOR), (20, Quality.LOST), (0, Quality.LOST)],
)
def test_steps(score, quality):
    assert quality_of(score) == quality


def test_mos_is_bounded_and_rises():
    values = [mos(score) for score in range(0, 101, 5)]
    assert min(values) >= 1.0 and max(values) == pytest.approx(4.5)
    assert values[-1] > values[10] > values[2]


def block(leg, lost):
    return ReportBlock(leg.ssrc, 0, lost, 0, 0, 0, 0)


def test_downlink_counts_what_was_sent_against_what_was_lost():
    scores, leg = DownlinkScores(), audio_leg(Sink())
    assert scores.window([leg], 0.0) is None
    scores.report(leg, block(leg, 0), 0.0)
    leg.packets = 100
    scores.report(leg, block(leg, 0), 4.0)
    assert scores.window([leg], 5.0) == BEST
    leg.packets = 200
    scores.report(leg, block(leg, 10), 9.0)
    assert scores.window([leg], 10.0) < 80


def test_downlink_without_reports_or_packets_is_not_scored():
    scores, leg = DownlinkScores(), audio_leg(Sink())
    scores.report(leg, block(leg, 0), 0.0)
    assert scores.window([leg], 5.0) is None
    leg.packets = 500
    assert scores.window([leg], REPORT_TIMEOUT + 1) is None
    scores.forget(leg)
    assert scores.window([leg], 6.0) is None


def test_the_board_speaks_only_of_steps():
    board = QualityBoard()
    board.update("PA_a", None)
    board.update("PA_b", 100.0)
    assert {info.participant_sid: info.quality for info in board.changes()} == {
        "PA_a": Quality.EXCELLENT,
        "PA_b": Quality.EXCELLENT,
    }
    board.update("PA_b", 81.0)
    assert board.changes() == ()
    board.update("PA_b", 50.0)
    assert {info.participant_sid: info.quality for info in board.changes()}["PA_b"] == Quality.GOOD
    board.forget("PA_b")
    assert board.changes() == (), "who is gone is no news of the others"


def test_lost_is_poor_for_older_clients():
    info = rtc.ConnectionQualityInfo(participant_sid="PA_a", quality=Quality.LOST, score=1.0)
    assert for_protocol(info, 10).quality == Quality.POOR
    assert for_protocol(info, 11).quality == Quality.LOST
