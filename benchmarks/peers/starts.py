"""What the functions of the measured jobs note: when each of them started."""

import time

noted: list[tuple[str, int]] = []


def note(email: str) -> None:
    """By a clock that all processes of a machine share."""
    noted.append((email, time.monotonic_ns()))
