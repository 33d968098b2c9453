"""Every key of a LiveKit configuration (livekit-surface sections 5.2 to 5.4 and 12), as a tree: None is a leaf.

A leaf takes what its place in `lkactor.config` takes; below a leaf nothing is checked.
"""

from __future__ import annotations

Schema = dict[str, "Schema | None"]


def _leaves(names: str) -> Schema:
    return dict.fromkeys(names.split())


SCHEMA: Schema = {
    **_leaves(
        "port bind_addresses prometheus_port log_level key_file keys region development enable_data_tracks "
        "enable_participant_data_blob trace metric node_stats signal_relay psrpc api"
    ),
    "prometheus": _leaves("port username password"),
    "debug_handler": _leaves("port"),
    "logging": _leaves(
        "json level sample component_levels sample_initial sample_interval item_sample_seconds item_sample_initial "
        "item_sample_interval pion_level"
    ),
    "rtc": {
        **_leaves(
            "udp_port tcp_port force_tcp port_range_start port_range_end node_ip use_external_ip external_ip_only "
            "advertise_internal_ip skip_external_ip_validation stun_servers use_stun_port_as_ice use_ice_lite use_mdns "
            "enable_loopback_candidate batch_io sctp_min_cwnd sctp_fast_rtx_wnd sctp_cwnd_ca_step turn_servers "
            "enable_warp strict_acks packet_buffer_size packet_buffer_size_video packet_buffer_size_audio "
            "allow_tcp_fallback tcp_fallback_rtt_threshold allow_udp_unstable_fallback reconnect_on_publication_error "
            "reconnect_on_subscription_error reconnect_on_data_channel_error data_channel_max_buffered_amount "
            "datachannel_slow_threshold datachannel_lossy_target_latency datachannel_data_track_target_latency "
            "forward_stats enable_rtp_stream_restart_detection congestion_control"
        ),
        "interfaces": _leaves("includes excludes"),
        "ips": _leaves("includes excludes"),
        "pli_throttle": _leaves("low_quality mid_quality high_quality"),
    },
    "audio": _leaves(
        "active_level min_percentile update_interval smooth_intervals active_red_encoding enable_loss_proxying"
    ),
    "video": _leaves("dynacast_pause_delay codec_regression_threshold stream_tracker_manager"),
    "room": _leaves(
        "enabled_codecs auto_create max_participants enable_remote_unmute empty_timeout "
        "departure_timeout playout_delay "
        "sync_streams create_room_timeout create_room_attempts update_batch_target_size enable_full_room_in_webhooks "
        "room_configurations max_metadata_size max_room_name_length max_participant_identity_length"
    ),
    "turn": _leaves(
        "enabled domain cert_file key_file external_tls udp_port tls_port relay_range_start relay_range_end "
        "bind_addresses per_user_relay_allocation_limit ttl_seconds allow_restricted_peer_cidrs deny_peer_cidrs"
    ),
    "redis": _leaves(
        "address username password db use_tls tls sentinel_master_name sentinel_username sentinel_password "
        "sentinel_addresses cluster_addresses max_redirects dial_timeout read_timeout write_timeout "
        "pool_timeout pool_size"
    ),
    "ingress": _leaves("rtmp_base_url whip_base_url"),
    "sip": None,
    "webhook": _leaves("urls api_key resource_url_notifier url_notifier filter_params"),
    "agents": _leaves("enable_user_data_recording enable_user_data_redaction target_load"),
    "node_selector": _leaves("kind sort_by algorithm cpu_load_limit sysload_limit regions"),
    "limit": _leaves(
        "num_tracks bytes_per_sec subscription_limit_video subscription_limit_audio max_metadata_size "
        "max_attributes_size max_room_name_length max_participant_identity_length max_participant_name_length "
        "max_data_blob_key_length max_data_blobs_size max_data_track_custom_encoding_length signal_message_size_limit "
        "agent_signal_message_size_limit max_api_request_body_size"
    ),
}
