"""Prometheus: the names and numbers that the reference's dashboards read (livekit-surface 7)."""

from livekit.protocol import models
from prometheus_client.parser import text_string_to_metric_families

from lkactor.eventlog import EventLog
from lkactor.metrics import Metrics, Traffic, kind_of


def scrape(metrics, rooms=(), tracks=(), dropped=None):
    text = metrics.exposition(rooms, tracks, Traffic(10, 1000, 20, 2000), dropped or {}).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k not in ("node_id", "node_type")}
            assert sample.name.startswith("lkactor_") or sample.labels["node_id"] == "ND_x"
            found[(sample.name, *sorted(labels.items()))] = sample.value
    return found


def observed(*entries):
    metrics, log = Metrics("ND_x"), EventLog(0.0)
    log.listen(metrics.observe)
    for at, who, event, detail in entries:
        log.record(at, "demo", who, event, detail)
    return metrics


def test_what_is():
    rooms = [models.Room(name="a", num_participants=3), models.Room(name="b", num_participants=1)]
    found = scrape(Metrics("ND_x"), rooms, ["TR_AMx", "TR_VCx", "TR_VSx"], {"udp.send_buffer_full": 4, "mux.x": 1})
    assert found["livekit_room_total",] == 2
    assert found["livekit_participant_total",] == 4
    assert found["livekit_track_published_total", ("kind", "audio")] == 1
    assert found["livekit_track_published_total", ("kind", "video")] == 2
    assert found["livekit_packet_total", ("direction", "outgoing")] == 20
    assert found["livekit_packet_bytes", ("direction", "incoming")] == 1000
    assert found["livekit_node_packet_total", ("type", "dropped")] == 4
    assert found["lkactor_dropped_total", ("reason", "mux.x")] == 1


def test_what_happened():
    found = scrape(
        observed(
            (0.0, "", "room.started", "RM_x"),
            (1.0, "ann", "participant.joined", "PA_x"),
            (1.05, "ann", "publisher.connected", ""),
            (1.06, "ann", "active", ""),
            (2.0, "ann", "add_track", "TR_AMx audio"),
            (2.1, "ann", "track.published", "TR_AMx audio/opus mid 1"),
            (3.0, "ben", "subscribed", "TR_AMx"),
            (61.0, "ann", "participant.left", ""),
            (70.0, "", "room.finished", ""),
            (71.0, "", "join.refused", "401 no"),
            (72.0, "", "join.refused", "404 no"),
        )
    )
    for state in ("signal_connected", "rtc_init", "rtc_connected", "rtc_active", "signal_failed"):
        assert found["livekit_participant_join_total", ("state", state)] == 1, state
    assert found["livekit_participant_join_total", ("state", "signal_validation_failed")] == 1
    assert found["livekit_track_publish_counter", ("kind", "audio"), ("state", "success")] == 1
    assert found["livekit_track_subscribe_counter", ("error", ""), ("state", "success")] == 1
    assert found["livekit_session_join_latency_ms_count",] == 1
    assert 59 < found["livekit_session_join_latency_ms_sum",] < 61
    assert found["livekit_session_duration_ms_sum",] == 60_000
    assert found["livekit_room_duration_seconds_sum",] == 70


def test_api_calls():
    metrics = Metrics("ND_x")
    metrics.twirp("RoomService", "CreateRoom", 200, "", 3.0)
    metrics.twirp("RoomService", "CreateRoom", 401, "unauthenticated", 1.0)
    found = scrape(metrics)
    call = (("method", "CreateRoom"), ("service", "RoomService"))
    assert found[("livekit_node_twirp_request_status", ("code", ""), *call, ("status", "2XX"))] == 1
    assert found[("livekit_node_twirp_request_status", ("code", "unauthenticated"), *call, ("status", "4XX"))] == 1
    assert found[("livekit_node_twirp_request_latency_ms_count", *call, ("status", "2XX"))] == 1


def test_kinds():
    assert [kind_of(sid) for sid in ("TR_AMx", "TR_VCx", "TR_VSx", "TR_ASx")] == ["audio", "video", "video", "audio"]
