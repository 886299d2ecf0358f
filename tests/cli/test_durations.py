"""Spans of time as they are typed."""

import pytest

from afterward.cli.durations import duration


@pytest.mark.parametrize(
    ("typed", "seconds"),
    [
        ("0", 0), ("90", 90), ("90s", 90), ("5m", 300), ("2h", 7200), ("7d", 604_800), ("1.5h", 5400), ("0.5", 0.5),
        ("2H", 7200), (" 5m ", 300), ("5 m", 300), ("10000d", 864_000_000),
    ],
)  # fmt: skip
def test_what_is_a_span(typed: str, seconds: float) -> None:
    """Seconds without a unit; one unit."""
    assert duration(typed) == seconds


@pytest.mark.parametrize(
    "typed", ["", "m", "-5", "5w", "5mm", "1h30m", "1e3", "nan", "inf", "five", ".5", "5.", "\u0665", "1_0", "0x10"]
)
def test_what_is_none_is_refused_with_the_mend(typed: str) -> None:
    with pytest.raises(ValueError, match="is no span of time; write 90, 90s, 5m, 2h or 7d"):
        duration(typed)


def test_one_that_no_calendar_holds_is_refused() -> None:
    """Before it breaks an addition somewhere."""
    with pytest.raises(ValueError, match="too long; the longest is 10,000d"):
        duration("10001d")
