"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime

from afterward.errors import ConfigurationError
from afterward.options import Seconds, seconds


class Clock:
    """What a store takes the time from: `now`, by default the whole second that it is, until it is moved.

    It is the store's alone: what code asks the system for the time is answered by the system.
    """

    def __init__(self, now: datetime | None = None) -> None:
        self._seconds = float(int(datetime.now(UTC).timestamp()))
        if now is not None:
            self.set(now)

    @property
    def now(self) -> datetime:
        """The time it shows, in UTC."""
        return datetime.fromtimestamp(self._seconds, UTC)

    def advance(self, span: Seconds) -> None:
        """Go forward by a `timedelta`, or by so many seconds. What becomes due by it runs at the next drain."""
        self._seconds += seconds(span)  # as floats, which is how a store adds a delay: what waited is due to the bit

    def set(self, now: datetime) -> None:
        """Show this time, which needs a time zone."""
        if now.tzinfo is None:
            raise ConfigurationError(f"{now!r} has no time zone; use datetime(…, tzinfo=UTC), for one")
        self._seconds = now.timestamp()

    def __call__(self) -> float:
        """The time it shows, in seconds since 1970."""
        return self._seconds

    def __repr__(self) -> str:
        return f"<Clock {self.now.isoformat()}>"
