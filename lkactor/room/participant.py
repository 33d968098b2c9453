"""One participant as the others see it: identity, state, permissions, metadata. Pure.

`version` rises with every change that is read out, so that a client can order what reaches it (livekit-surface 2.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from livekit.protocol import models

from lkactor.auth import Claims, to_participant_permission
from lkactor.config import LimitConfig
from lkactor.signal.join import JoinParameters

State = models.ParticipantInfo.State


class LimitExceeded(Exception):
    """A field is longer than the configuration allows; the text is the reference's."""


class ParticipantModel:
    """Everything in `ParticipantInfo`, with the rules for changing it.

    Raises LimitExceeded when a token says more than the configuration allows.
    """

    def __init__(
        self,
        *,
        sid: str,
        identity: str,
        claims: Claims,
        parameters: JoinParameters,
        joined_at_ms: int,
        region: str,
        limits: LimitConfig,
    ) -> None:
        self.sid = sid
        self.identity = identity
        self._limits = limits
        self._info = models.ParticipantInfo(
            sid=sid,
            identity=identity,
            name=claims.name,
            state=State.JOINING,
            metadata=parameters.metadata or claims.metadata,
            joined_at=joined_at_ms // 1000,
            joined_at_ms=joined_at_ms,
            permission=to_participant_permission(claims.video),
            region=region,
            kind=_kind(claims.kind),
            attributes={**claims.attributes, **parameters.attributes},
            client_protocol=parameters.client.client_protocol,
            capabilities=parameters.client.capabilities,
        )
        self._info.kind_details.extend(_kind_details(claims.kind_details))
        if parameters.publish:
            self._info.permission.can_subscribe = False
        self._check(self._info.name, self._info.metadata, self._info.attributes)
        self._dirty = True

    # -- reading ----------------------------------------------------------------------------------------------------

    @property
    def permission(self) -> models.ParticipantPermission:
        return self._info.permission

    @property
    def state(self) -> int:
        return self._info.state

    @property
    def hidden(self) -> bool:
        return self._info.permission.hidden

    @property
    def dependent(self) -> bool:
        """Agents, egress and recorders do not keep a room alive and are not counted in it."""
        permission = self._info.permission
        kinds = (models.ParticipantInfo.Kind.AGENT, models.ParticipantInfo.Kind.EGRESS)
        return permission.agent or permission.recorder or self._info.kind in kinds

    def info(
        self, tracks: Iterable[models.TrackInfo], data_tracks: Iterable[models.DataTrackInfo]
    ) -> models.ParticipantInfo:
        """A copy; its version is new if anything changed since the last one."""
        del self._info.tracks[:]
        self._info.tracks.extend(tracks)
        del self._info.data_tracks[:]
        self._info.data_tracks.extend(data_tracks)
        if self._dirty:
            self._info.version += 1
            self._dirty = False
        copy = models.ParticipantInfo()
        copy.CopyFrom(self._info)
        return copy

    def may_publish(self, source: int) -> bool:
        permission = self._info.permission
        return permission.can_publish and (
            not permission.can_publish_sources or source in permission.can_publish_sources
        )

    # -- changing ---------------------------------------------------------------------------------------------------

    def touch(self) -> None:
        """Something that `info` reads has changed: a track."""
        self._dirty = True

    def set_state(self, state: int) -> bool:
        if state <= self._info.state:
            return False
        self._info.state = state  # type: ignore[assignment]
        self._dirty = True
        return True

    def set_publisher(self) -> None:
        if not self._info.is_publisher:
            self._info.is_publisher = True
            self._dirty = True

    def disconnect(self, reason: int) -> None:
        self._info.state = State.DISCONNECTED
        self._info.disconnect_reason = reason  # type: ignore[assignment]
        self._dirty = True

    def set_permission(self, permission: models.ParticipantPermission) -> None:
        self._info.permission.CopyFrom(permission)
        self._dirty = True

    def _check(self, name: str, metadata: str, attributes: Mapping[str, str]) -> None:
        limits = self._limits
        if len(name.encode()) > limits.max_participant_name_length:
            raise LimitExceeded("exceeds name length limit")
        if len(metadata.encode()) > limits.max_metadata_size:
            raise LimitExceeded("exceeds metadata size limit")
        if sum(len(k.encode()) + len(v.encode()) for k, v in attributes.items()) > limits.max_attributes_size:
            raise LimitExceeded("exceeds attributes size limit")

    def update(self, name: str, metadata: str, attributes: Mapping[str, str]) -> bool:
        """Empty name or metadata: unchanged. An empty attribute value deletes. False: there is nothing to tell.

        Raises LimitExceeded, and then nothing has changed.
        """
        name, metadata = name or self._info.name, metadata or self._info.metadata
        merged = {**self._info.attributes, **attributes}
        merged = {key: value for key, value in merged.items() if value}
        self._check(name, metadata, merged)
        if not attributes and (name, metadata) == (self._info.name, self._info.metadata):
            return False
        self._info.name, self._info.metadata = name, metadata
        self._info.attributes.clear()
        self._info.attributes.update(merged)
        self._dirty = True
        return True


def _kind_details(names: Iterable[str]) -> list[models.ParticipantInfo.KindDetail]:
    """Unknown ones say nothing."""
    known = models.ParticipantInfo.KindDetail.DESCRIPTOR.values_by_name
    return [known[name.upper()].number for name in names if name.upper() in known]  # type: ignore[misc]


def _kind(name: str) -> models.ParticipantInfo.Kind:
    kinds = models.ParticipantInfo.Kind
    known = kinds.DESCRIPTOR.values_by_name.get(name.upper())
    return kinds.STANDARD if known is None else known.number  # type: ignore[return-value]
