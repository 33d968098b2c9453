"""Prometheus: the names and numbers that the reference's dashboards read (livekit-surface 7)."""

import re

from livekit.protocol import models

from lkactor.eventlog import EventLog
from lkactor.metrics import Metrics, Traffic, Webhooks, kind_of

# What the reference's /metrics had after a meeting of two with sound, picture and a webhook, without what belongs to
# its message bus: name, type, labels. Taken from a running server, 1.13.5.
REFERENCE = {
    "forward_jitter": ("gauge", ""),
    "forward_latency": ("gauge", ""),
    "forward_latency_ns": ("histogram", ""),
    "jitter_us": ("histogram", "country direction source type"),
    "node_messages": ("counter", "direction status type"),
    "node_packet_total": ("gauge", "type"),
    "node_service_operation": ("counter", "error_type status type"),
    "node_twirp_request_latency_ms": ("histogram", "method service status"),
    "node_twirp_request_status": ("counter", "code method service status"),
    "packet_bytes": ("counter", "country direction transmission"),
    "packet_loss_percent": ("histogram", "country direction source type"),
    "packet_out_of_order_percent": ("histogram", "country direction source type"),
    "packet_total": ("counter", "country direction transmission"),
    "participant_join_total": ("counter", "state"),
    "participant_total": ("gauge", ""),
    "peer_connection_state": ("counter", "state transport"),
    "pli_total": ("counter", "country direction"),
    "room_duration_seconds": ("histogram", ""),
    "room_total": ("gauge", ""),
    "rtt_ms": ("histogram", "country direction source type"),
    "session_duration_ms": ("histogram", "protocol_version"),
    "session_join_latency_ms": ("histogram", "protocol_version"),
    "session_start_time_ms": ("histogram", "protocol_version"),
    "track_publish_counter": ("counter", "kind state"),
    "track_published_total": ("gauge", "kind"),
    "track_subscribe_counter": ("counter", "error state"),
    "track_subscribed_total": ("gauge", "kind"),
    "webhook_queue_length": ("histogram", ""),
    # Not in that meeting, but in its source:
    "nack_total": ("counter", "country direction"),
    "fir_total": ("counter", "country direction"),
    "packet_loss_total": ("counter", "country direction source type"),
    "packet_out_of_order_total": ("counter", "country direction source type"),
    "webhook_dispatch_total": ("counter", "reason status"),
}
NOT_HERE = ("datapacket_stream_bytes", "datapacket_stream_dest_count", "pubsubtime_ms", "quality_rating",
            "quality_score", "connection_total", "debug_ref_count")  # fmt: skip
"""In the reference's, with numbers that this server does not have. See docs/status.md."""


def exposition(metrics, rooms=(), dropped=None, webhooks=None):
    return metrics.exposition(rooms, Traffic(10, 1000, 20, 2000), dropped or {}, webhooks or Webhooks()).decode()


def scrape(metrics, *arguments):
    found = {}
    for line in exposition(metrics, *arguments).splitlines():
        if not line.startswith("#"):
            name, text, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()
            labels = dict(re.findall(r'(\w+)="([^"]*)"', text or ""))
            node = (labels.pop("node_id", None), labels.pop("node_type", None))
            assert node == ("ND_x", "SERVER") or not name.startswith("livekit_")
            found[(name, *sorted(labels.items()))] = float(value)
    return found


def observed(*entries):
    metrics, log = Metrics("ND_x"), EventLog(0.0)
    log.listen(metrics.observe)
    for at, who, event, detail in entries:
        if event == "participant.joined":
            metrics.answered("demo", who, 17, 0.025)
        log.record(at, "demo", who, event, detail)
    return metrics


def test_the_reference_s_names_types_and_labels():
    metrics = Metrics("ND_x")
    types = dict(line.split()[2:4] for line in exposition(metrics).splitlines() if line.startswith("# TYPE livekit_"))
    for name, (kind, _) in REFERENCE.items():
        assert types.get(f"livekit_{name}") == kind, name
    known = {f"livekit_{name}" for name in REFERENCE}
    extra = {name for name in types if name not in known and not name.endswith("_created")}
    assert extra == set(), "the reference has no such series"
    assert not any(f"livekit_{name}" in types for name in NOT_HERE)


def labels_of(metrics):
    """By name, the labels of the collectors in the registry."""
    found = {}
    for collector, names in metrics._families.registry._collector_to_names.items():
        for name in names:
            found[name] = " ".join(sorted(set(getattr(collector, "_labelnames", ())) - {"node_id", "node_type"}))
    return found


def test_the_reference_s_labels():
    found = labels_of(Metrics("ND_x"))
    assert {name: found[f"livekit_{name}"] for name in REFERENCE} == {n: labels for n, (_, labels) in REFERENCE.items()}


def test_what_is():
    rooms = [models.Room(name="a", num_participants=3), models.Room(name="b", num_participants=1)]
    found = scrape(Metrics("ND_x"), rooms, {"udp.send_buffer_full": 4, "mux.x": 1})
    assert found["livekit_room_total",] == 2
    assert found["livekit_participant_total",] == 4
    assert found["lkactor_datagrams_total", ("direction", "outgoing")] == 20
    assert found["lkactor_datagram_bytes_total", ("direction", "incoming")] == 1000
    assert found["livekit_node_packet_total", ("type", "dropped")] == 4
    assert found["lkactor_dropped_total", ("reason", "mux.x")] == 1
    assert "process_cpu_seconds_total" in {name for name, *_ in found}


def test_what_happened():
    found = scrape(
        observed(
            (0.0, "", "room.started", "RM_x"),
            (1.0, "ann", "participant.joined", "PA_x"),
            (1.01, "ann", "publisher.connecting", ""),
            (1.05, "ann", "publisher.connected", ""),
            (1.06, "ann", "active", ""),
            (2.0, "ann", "add_track", "TR_AMx audio"),
            (2.1, "ann", "track.published", "TR_AMx audio/opus mid 1"),
            (3.0, "ben", "subscribed", "TR_AMx"),
            (3.1, "ben", "subscription.failed", "codec_unsupported"),
            (61.06, "ann", "participant.left", ""),
            (70.0, "", "room.finished", ""),
            (71.0, "", "join.refused", "401 no"),
            (72.0, "", "join.refused", "404 no"),
        )
    )
    for state in ("signal_connected", "rtc_init", "rtc_connected", "rtc_active", "rtc_success", "signal_failed"):
        assert found["livekit_participant_join_total", ("state", state)] == 1, state
    assert found["livekit_participant_join_total", ("state", "signal_validation_failed")] == 1
    audio = ("kind", "AUDIO")
    assert found["livekit_track_publish_counter", audio, ("state", "attempt")] == 1
    assert found["livekit_track_publish_counter", audio, ("state", "success")] == 1
    assert found["livekit_track_subscribe_counter", ("error", ""), ("state", "success")] == 1
    assert found["livekit_track_subscribe_counter", ("error", "codec_unsupported"), ("state", "failure")] == 1
    for state in ("started", "ice_connected", "connected"):
        assert found["livekit_peer_connection_state", ("state", state), ("transport", "PUBLISHER")] == 1
    version = ("protocol_version", "17")
    assert found["livekit_session_join_latency_ms_sum", version] == 25
    assert round(found["livekit_session_start_time_ms_sum", version]) == 60
    assert round(found["livekit_session_duration_ms_sum", version]) == 60000
    assert found["livekit_room_duration_seconds_sum",] == 70
    operations = {dict(key[1:])["type"]: n for key, n in found.items() if key[0] == "livekit_node_service_operation"}
    assert operations == {"participant_join": 1, "peer_connection": 1}


def test_who_never_had_media_has_no_duration():
    found = scrape(observed((1.0, "ann", "participant.joined", "PA_x"), (9.0, "ann", "participant.left", "")))
    assert not any(name.startswith("livekit_session_duration_ms") for name, *_ in found)


def test_counters_that_are_kept_elsewhere_never_fall():
    metrics = Metrics("ND_x")
    metrics.signal.requests, metrics.signal.responses = 5, 7
    sent = ("livekit_webhook_dispatch_total", ("reason", ""), ("status", "success"))
    request = ("livekit_node_messages", ("direction", "request"), ("status", "success"), ("type", "signal"))
    assert scrape(metrics, (), {}, Webhooks(sent=3))[sent] == 3
    assert scrape(metrics, (), {}, Webhooks(sent=4))[sent] == 4
    assert scrape(metrics, (), {}, Webhooks(sent=1))[sent] == 4, "the receiver was started again"
    found = scrape(metrics, (), {}, Webhooks(sent=2, queued=12))
    assert (found[sent], found[request]) == (5, 5)
    assert found["livekit_webhook_queue_length_bucket", ("le", "20.0")] == 4


def test_subscriptions_that_came_to_nothing():
    metrics = Metrics("ND_x")
    metrics.subscribing(3, 0)
    metrics.subscribing(0, 2)
    found = scrape(metrics)
    assert found["livekit_track_subscribe_counter", ("error", ""), ("state", "attempt")] == 3
    assert found["livekit_track_subscribe_counter", ("error", ""), ("state", "cancel")] == 2


def test_api_calls_have_the_reference_s_status_families():
    metrics = Metrics("ND_x")
    for status, code in ((200, ""), (404, "not_found"), (503, "unavailable")):
        metrics.twirp("RoomService", "DeleteRoom", status, code, 3.0)
    found = scrape(metrics)
    rest = (("method", "DeleteRoom"), ("service", "RoomService"))
    for code, family in (("", "200"), ("not_found", "4xx"), ("unavailable", "5xx")):
        assert found["livekit_node_twirp_request_status", ("code", code), *rest, ("status", family)] == 1


def test_kinds_of_tracks():
    assert [kind_of(sid) for sid in ("TR_AMx", "TR_SAx", "TR_VCx", "TR_VSx")] == ["AUDIO", "AUDIO", "VIDEO", "VIDEO"]
