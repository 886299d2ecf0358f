"""What a command says beside its answer: on standard error."""

from __future__ import annotations

import contextlib
import sys


def say(text: str) -> None:
    """Say it at once. A standard error that is full or closed is no reason to stop what is under way."""
    with contextlib.suppress(OSError, ValueError):
        print(printable(text), file=sys.stderr, flush=True)


def complain(trouble: object) -> None:
    """Say what went wrong."""
    say(f"afterward: {trouble}")


def printable(text: str) -> str:
    """What a task wrote must not steer the terminal of who looks."""
    text = text.expandtabs(4)
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
