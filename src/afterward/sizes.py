"""Amounts for people."""

from __future__ import annotations


def size(count: int) -> str:
    """So many bytes: `512 B`, `1.5 KiB`, `52 KiB`."""
    amount, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"


def many(number: int, noun: str, plural: str | None = None) -> str:
    """So many of these: `1 job`, `1,234 jobs`."""
    return f"1 {noun}" if number == 1 else f"{number:,} {plural or noun + 's'}"
