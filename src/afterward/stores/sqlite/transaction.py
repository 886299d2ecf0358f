"""What an operation needs that is carried out."""

from __future__ import annotations

from typing import NamedTuple

import apsw

from afterward.stores.sqlite.doorbell import Doorbell


class Transaction(NamedTuple):
    """One transaction: on which connection, at what time by the store's clock, whose doorbell calls others."""

    connection: apsw.Connection
    now: float
    doorbell: Doorbell
