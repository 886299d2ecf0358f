"""The work itself: a report takes a while, and says how far it is."""

import asyncio
import os

from pydantic import BaseModel

from afterward import progress

SECONDS = float(os.environ.get("REPORTS_SECONDS", "3"))
"""How long a report takes."""


class Report(BaseModel):
    """What comes of it."""

    year: int
    months: list[int]


async def write_report(year: int) -> Report:
    """Count what there is to count, month by month."""
    months: list[int] = []
    for month in range(1, 13):
        progress(month, 12, f"{year}-{month:02}")
        await asyncio.sleep(SECONDS / 12)
        months.append(year * month % 97)
    return Report(year=year, months=months)
