"""What was done, in a file that all processes write to: one line for each thing, and by which process."""

import os
from pathlib import Path


def book(what: str, order: int) -> None:
    """Write a line. One that is appended in one call is not mixed with another."""
    with Path(os.environ.get("SHOP_LEDGER", "ledger.txt")).open("a") as ledger:
        ledger.write(f"{what} {order} {os.getpid()}\n")
