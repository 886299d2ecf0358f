"""A line in the log for each action: who, when, what; never with arguments."""

from __future__ import annotations

import logging
from typing import Any

from afterward.observe import emit
from afterward.web.dashboard.visit import Visit


def audit(visit: Visit, action: str, **facts: Any) -> None:
    """Tell of one action, also of one that came to nothing."""
    emit(logging.INFO, "dashboard.action", by=visit.who or "unnamed", action=action, **facts)
