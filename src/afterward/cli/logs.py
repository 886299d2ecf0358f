"""The worker's log, for an application that has none of its own."""

from __future__ import annotations

import logging
import sys


def configure() -> None:
    """Write events of level INFO to standard error, one line each, unless the application has said where they go."""
    events = logging.getLogger("afterward")
    if events.hasHandlers():
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s [%(process)d] %(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z")
    )
    logging.getLogger().addHandler(handler)
    if events.level == logging.NOTSET:
        events.setLevel(logging.INFO)
