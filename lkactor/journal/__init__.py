"""The event log: what happened in the rooms, kept until every receiver has it. Pure; see docs/webhooks.md."""

from __future__ import annotations

from lkactor.journal.delivery import Delivery, Outcome, ReceiverState
from lkactor.journal.ledger import Ledger
from lkactor.journal.log import Batch, Gap, Journal, Limits, Position
from lkactor.journal.news import RoomNews
from lkactor.journal.records import Record
from lkactor.journal.store import MemoryStore, Store, StoreError, execute

__all__ = [
    "Batch",
    "Delivery",
    "Gap",
    "Journal",
    "Ledger",
    "Limits",
    "MemoryStore",
    "Outcome",
    "Position",
    "ReceiverState",
    "Record",
    "RoomNews",
    "Store",
    "StoreError",
    "execute",
]
