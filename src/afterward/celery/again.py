"""When a message that has not begun is to be looked at, and sent once more: a pure decision."""

from __future__ import annotations

from typing import NamedTuple

FIRST_LOOK_SECONDS = 8.0
"""After this it is looked for the first time whether a message may be lost."""

CERTAIN_SECONDS = 30.0
"""A message that has been out for so long is sent once more, though others wait before it."""

LONGEST_SECONDS = 600.0
"""The longest time between two looks."""


class Again(NamedTuple):
    """`sends`: the message is to be sent once more. `again`: seconds until the next look."""

    sends: bool
    again: float


def after(waited: float, waiting: int | None) -> Again:
    """What to do for an attempt whose message was confirmed so many seconds ago, and has not begun it.

    `waiting`: how many messages are in its queue, or None where nobody knows. Where none is, it is lost, or with a
    worker that has taken it and does not begin it yet: to send it again costs little, and less each time, for each look
    comes after twice the time of the one before. Where some are, it may be among them.
    """
    sends = waiting == 0 or waited >= CERTAIN_SECONDS
    next_look = 2 * waited if sends else waited
    return Again(sends, min(max(next_look, FIRST_LOOK_SECONDS), LONGEST_SECONDS))
