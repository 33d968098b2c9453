"""Embedding: a server as a Trio task of your own program.

async with lkactor.server.running(config) as node:
    print(node.port)
"""

from __future__ import annotations

from actors.impairment import NetworkConditions
from actors.node import Node
from actors.node import run_node as running

__all__ = ["NetworkConditions", "Node", "running"]
