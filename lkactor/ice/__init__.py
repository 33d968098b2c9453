"""Interactive Connectivity Establishment: candidates, the agent, and framing for TCP."""

from lkactor.ice.agent import IceAgent, IceEvent, IceState, IceStateChanged, IceTiming, PathSelected, PathValidated
from lkactor.ice.candidate import Candidate, host_candidates

__all__ = [
    "Candidate",
    "IceAgent",
    "IceEvent",
    "IceState",
    "IceStateChanged",
    "IceTiming",
    "PathSelected",
    "PathValidated",
    "host_candidates",
]
