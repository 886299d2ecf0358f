"""How long a store that cannot answer is left alone before it is asked again."""

from __future__ import annotations

import random

_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.05, 2.0
"""Between two tries; each may have taken as long as the store's own patience."""


def pause_after(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return random.uniform(0.5, 1) * min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(failures, 20))  # noqa: S311
