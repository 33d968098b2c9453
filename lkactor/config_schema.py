"""Every key of a configuration as a tree: the dataclasses of `lkactor.config`, and LiveKit's keys that have none.

A node is a dict of names, a `Listed` of one, or None for a leaf, below which nothing is checked. Keys that have a field
and yet no effect are in `WITHOUT_EFFECT`; so that a server says at its start what it does not heed, they stay there
until the feature exists.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Any

Schema = dict[str, "Node"]


@dataclass(frozen=True, slots=True)
class Listed:
    """A list (or a mapping by free names) of such nodes."""

    item: Schema


Node = Schema | Listed | None

WITHOUT_EFFECT = (
    "webhook.resource_url_notifier", "debug_handler", "logging.component_levels", "logging.sample",
    "logging.sample_initial", "logging.sample_interval", "logging.item_sample_seconds", "logging.item_sample_initial",
    "logging.item_sample_interval", "logging.pion_level",
    "signal_relay",
    "agents.enable_user_data_recording", "agents.enable_user_data_redaction", "agents.target_load",
    "room.create_room_timeout",
    "room.create_room_attempts", "room.update_batch_target_size",
    "rtc.allow_udp_unstable_fallback", "rtc.reconnect_on_publication_error", "rtc.reconnect_on_subscription_error",
    "rtc.reconnect_on_data_channel_error",
)  # fmt: skip
"""Paths, each with all below it."""


def _leaves(names: str) -> Schema:
    return dict.fromkeys(names.split())


_TREND = _leaves(
    "required_samples required_samples_min downward_trend_threshold downward_trend_max_wait collapse_threshold "
    "validity_window"
)
_OBSERVER: Schema = {
    "estimate": _TREND,
    "nack": _leaves("window_min_duration window_max_duration ratio_threshold"),
}
_REGULATOR = _leaves("base_interval backoff_factor max_interval min_duration max_duration duration_increase_factor")
_SETTLE = _leaves("settle_wait_num_rtt settle_wait_min settle_wait_max")
_GROUP = _leaves("min_packets max_window_duration")
_SIGNAL = _leaves("min_number_of_groups min_duration")
_LOSS = _leaves("min_duration_for_loss_validity base_duration base_pps loss_penalty_factor")
_DETECTOR: Schema = {
    **_leaves(
        "packet_group_max_age jqr_min_delay jqr_min_trend_coefficient dqr_max_delay jqr_min_weighted_loss "
        "dqr_max_weighted_loss congested_ctr_epsilon estimaton_window_duration"
    ),
    "packet_group": _GROUP,
    "probe_packet_group": {"packet_group": _GROUP, **_SETTLE},
    "probe_regulator": _REGULATOR,
    "probe_signal": {
        **_leaves(
            "min_bytes_ratio min_duration_ratio jqr_min_delay dqr_max_delay jqr_min_weighted_loss dqr_max_weighted_loss"
        ),
        "weighted_loss": _LOSS,
    },
    "weighted_loss": _LOSS,
    "congested_ctr_trend": _TREND,
    "congested_packet_group": _GROUP,
    **{
        f"{cause}_{stage}_{region}": _SIGNAL
        for cause in ("queuing_delay", "loss")
        for stage in ("early_warning", "congested")
        for region in ("jqr", "dqr")
    },
}
_CONGESTION: Schema = {
    **_leaves("use_send_side_bwe_interceptor use_send_side_bwe send_side_bwe_pacer"),
    "stream_allocator": _leaves(
        "min_channel_capacity disable_etimation_unmanaged_tracks probe_mode probe_overage_pct probe_min_bps "
        "paused_min_wait"
    ),
    "remote_bwe": {
        **_leaves("nack_ratio_attenuator expected_usage_threshold"),
        "channel_observer_probe": _OBSERVER,
        "channel_observer_non_probe": _OBSERVER,
        "probe_controller": {"probe_regulator": _REGULATOR, **_SETTLE},
    },
    "send_side_bwe": {"congestion_detector": _DETECTOR},
}
_TRACKER: Schema = {
    **_leaves("stream_tracker_type bitrate_report_interval"),
    "packet_tracker": Listed(_leaves("samples_required cycles_required cycle_duration")),
    "frame_tracker": Listed(_leaves("min_fps")),
}
EXTRA: Schema = {
    **_leaves("prometheus_port log_level"),
    "trace": _leaves("jaeger_url"),
    "metric": {
        "timestamper_config": _leaves("one_way_delay_estimator_min_interval one_way_delay_estimator_max_batch"),
        "collector": _leaves("sampling_interval_ms batch_interval_ms"),
        "reporter": _leaves("reporting_interval_ms"),
    },
    "node_stats": _leaves("stats_update_interval stats_rate_measurement_intervals stats_max_delay"),
    "psrpc": _leaves("max_attempts timeout backoff buffer_size"),
    "api": _leaves("execution_timeout check_interval max_check_interval enable_psrpc_for_get_list_participants"),
    "logging": _leaves(
        "sample component_levels sample_initial sample_interval item_sample_seconds item_sample_initial "
        "item_sample_interval pion_level"
    ),
    "rtc": {
        **_leaves(
            "use_stun_port_as_ice use_mdns sctp_min_cwnd sctp_fast_rtx_wnd sctp_cwnd_ca_step enable_warp strict_acks "
            "packet_buffer_size data_channel_max_buffered_amount "
            "datachannel_lossy_target_latency datachannel_data_track_target_latency "
            "enable_rtp_stream_restart_detection host_acceptance_min_wait srflx_acceptance_min_wait "
            "prflx_acceptance_min_wait relay_acceptance_min_wait"
        ),
        "batch_io": _leaves("batch_size max_flush_interval"),
        "forward_stats": _leaves("summary_interval report_interval report_window"),
        "congestion_control": _CONGESTION,
    },
    "audio": _leaves("active_red_encoding enable_loss_proxying"),
    "video": {
        "stream_tracker_manager": {"video": _TRACKER, "screenshare": _TRACKER},
    },
    "room": _leaves("max_metadata_size max_room_name_length max_participant_identity_length"),
    "redis": {
        **_leaves(
            "address username password db use_tls sentinel_master_name sentinel_username sentinel_password "
            "sentinel_addresses cluster_addresses max_redirects dial_timeout read_timeout write_timeout "
            "pool_timeout pool_size"
        ),
        "tls": _leaves("enabled insecure server_name ca_cert_file client_cert_file client_key_file"),
    },
    "ingress": _leaves("rtmp_base_url whip_base_url"),
    "sip": {},
    "webhook": {"url_notifier": _leaves("num_workers queue_size")},
    "node_selector": {
        **_leaves("kind sort_by algorithm cpu_load_limit sysload_limit"),
        "regions": Listed(_leaves("name lat lon")),
    },
}
APPLIED = frozenset(
    {
        "prometheus_port",
        "log_level",
        "room.max_metadata_size",
        "room.max_room_name_length",
        "room.max_participant_identity_length",
    }
)
"""Old names that have no field and are moved to their new place."""


def schema_of(cls: type[Any], extra: Schema | None = None) -> Schema:
    """The keys of a dataclass and of those below it, with `extra` keys merged in."""
    hints = typing.get_type_hints(cls)
    tree: Schema = {}
    for entry in dataclasses.fields(cls):
        if not entry.metadata.get("yaml", True):
            continue
        more = (extra or {}).get(entry.name)
        hint = hints[entry.name]
        item = next(iter(typing.get_args(hint)), None) if typing.get_origin(hint) is tuple else None
        if dataclasses.is_dataclass(hint):
            tree[entry.name] = schema_of(typing.cast(type[Any], hint), more if isinstance(more, dict) else None)
        elif isinstance(item, type) and dataclasses.is_dataclass(item):
            tree[entry.name] = Listed(schema_of(item))
        else:
            tree[entry.name] = None
    return tree | {name: node for name, node in (extra or {}).items() if name not in tree}


def fields_of(cls: type[Any], prefix: str = "") -> dict[str, Any]:
    """The types of all scalar fields by dotted path: the keys that flags and the environment can set."""
    paths: dict[str, Any] = {}
    hints = typing.get_type_hints(cls, include_extras=True)
    for entry in dataclasses.fields(cls):
        hint = hints[entry.name]
        if not entry.metadata.get("yaml", True):
            continue
        if dataclasses.is_dataclass(hint):
            paths |= fields_of(typing.cast(type[Any], hint), f"{prefix}{entry.name}.")
        else:
            paths[prefix + entry.name] = hint
    return paths


def plain_hint(hint: Any) -> tuple[Any, tuple[object, ...]]:
    """A hint without `| None`, and what it is annotated with."""
    notes: tuple[object, ...] = ()
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if typing.get_origin(hint) is typing.Annotated:
        hint, *rest = typing.get_args(hint)
        notes = tuple(rest)
    return hint, notes
