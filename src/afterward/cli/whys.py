"""`afterward why`: what keeps a job from running, or from its end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.text import Text

from afterward.cli.output import plain_console
from afterward.cli.reading import found_in, opened
from afterward.cli.telling import printable
from afterward.explaining import explain_found
from afterward.job import Job
from afterward.reasons import Reason


async def explained(url: str | None, id: str) -> tuple[Job, list[Reason]]:  # noqa: A002 - it is the job's
    """The job of this id, or of the only one that begins so, and why it is not done."""
    async with opened(url) as store:
        job = await found_in(store, id)
        return job, await explain_found(store, job)


def print_reasons(job: Job, reasons: Sequence[Reason], *, as_json: bool) -> None:
    """A sentence for each, with its mend under it; or a JSON array."""
    if as_json:
        print(json.dumps([asdict(reason) for reason in reasons], indent=2))
        return
    console = plain_console()
    console.print(Text(printable(f"job {job.id} of {job.task} is {job.status.value}:")), soft_wrap=True)
    for reason in reasons:
        console.print(Text(printable(f"- {reason.text}").replace("\n", "\n  ")), soft_wrap=True)
        if reason.mend is not None:
            console.print(Text(printable(f"  mend: {reason.mend}"), "dim"), soft_wrap=True)
