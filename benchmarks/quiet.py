"""The tasks of the measured app, for a worker that logs warnings only."""

import logging

from benchmarks.app import tasks

__all__ = ["tasks"]

logging.basicConfig(level=logging.WARNING)
