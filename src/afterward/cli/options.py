"""Options that several commands take."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from afterward.cli.durations import duration
from afterward.job import Status

_LONGEST_GRACE = 86_400


def _span(text: str) -> float:
    try:
        return duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _grace(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _LONGEST_GRACE:
        raise typer.BadParameter(f"{text!r} is no number of seconds from 0 to {_LONGEST_GRACE:,}")
    return seconds


Grace = Annotated[
    float,
    typer.Option(parser=_grace, metavar="SECONDS", help="What running jobs get to end in at a shutdown."),
]
Store = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="The store; by default AFTERWARD_URL, else sqlite:///afterward.db."),
]
Limit = Annotated[int, typer.Option(min=1, max=1_000_000, help="How many, at most.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Target = Annotated[
    str, typer.Argument(metavar="MODULE:NAME", help="An Afterward, or the app it is installed on, e.g. main:app.")
]
Id = Annotated[str, typer.Argument(metavar="ID", help="The job's id, or how it begins: at least 8 characters.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of jobs, or how they begin.")]
All = Annotated[bool, typer.Option("--all", help="All jobs that the other options leave, in place of ids.")]
Task = Annotated[str | None, typer.Option(metavar="NAME", help="Only jobs of this task.")]
Queue = Annotated[str | None, typer.Option(metavar="NAME", help="Only jobs of this queue.")]
Owner = Annotated[str | None, typer.Option(metavar="NAME", help="Only jobs of this owner.")]
Signature = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Only jobs that fail with this signature: see afterward failures."),
]
QueueName = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name.")]
Statuses = Annotated[list[Status] | None, typer.Option(help="Only jobs of this status; may be given again.")]
Since = Annotated[
    float | None,
    typer.Option(parser=_span, metavar="SPAN", help="Only jobs added since then: 90s, 5m, 2h or 7d ago."),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the job has ended.")]
Timeout = Annotated[
    float | None,
    typer.Option(parser=_span, metavar="SPAN", help="How long to wait: 90s, 5m …; by default as long as it takes."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def span_option(text: str) -> typer.models.OptionInfo:
    """An option whose value is a span of time, in seconds."""
    found: typer.models.OptionInfo = typer.Option(parser=_span, metavar="SPAN", help=text)
    return found
