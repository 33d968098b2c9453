"""Interactive Connectivity Establishment: candidates, the agent, and framing for TCP."""

from lkactor.ice.agent import (
    Consent,
    IceAgent,
    IceEvent,
    IceState,
    IceStateChanged,
    IceTiming,
    PathSelected,
    PathValidated,
)
from lkactor.ice.candidate import Candidate, host_candidates
from lkactor.ice.fallback import Fallback, PathKind, Preference, PreferenceMemory, Ways

__all__ = [
    "Candidate",
    "Consent",
    "Fallback",
    "IceAgent",
    "IceEvent",
    "IceState",
    "IceStateChanged",
    "IceTiming",
    "PathKind",
    "PathSelected",
    "PathValidated",
    "Preference",
    "PreferenceMemory",
    "Ways",
    "host_candidates",
]
