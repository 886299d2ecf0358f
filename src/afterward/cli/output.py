"""Jobs as tables for people, and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from afterward.cli.telling import printable
from afterward.job import Attempt, Failure, Job
from afterward.redaction import shown
from afterward.states import progress_in, span, state_of, summary

_WIDEST = 10_000
_STYLES = {
    "running": "cyan",
    "cancelling": "magenta",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "dim",
    "waiting": "yellow",
    "retrying": "yellow",
}


def print_jobs(jobs: Sequence[Job], *, more: bool, as_json: bool) -> None:
    """A table, or a JSON array. Arguments and results are left to `print_job`."""
    now = datetime.now(UTC)
    if as_json:
        print(json.dumps([_facts(job, now) for job in jobs], indent=2))
        return
    console = plain_console()
    if not jobs:
        console.print("no jobs")
        return
    print_table(console, table_of(jobs, now))
    if more:
        console.print(f"These are the newest {len(jobs)}; there are more (--limit).")


def print_change(job: Job, *, as_json: bool) -> None:
    """One line, written at once, of a job as it stands now."""
    now = datetime.now(UTC)
    if as_json:
        print(json.dumps(_facts(job, now)), flush=True)
        return
    state = state_of(job, now)
    line = f"{now:%Y-%m-%dT%H:%M:%SZ} {job.id} {state.word:<9} {job.task} {state.detail}"
    print(printable(line).replace("\n", " ").rstrip(), flush=True)


def table_of(jobs: Sequence[Job], now: datetime) -> Table:
    """A line for each job."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("job", "state", "created"):
        table.add_column(name, no_wrap=True)
    several_queues = any(job.queue != "default" for job in jobs)
    for name in ("queue", "task", "detail") if several_queues else ("task", "detail"):
        table.add_column(name, overflow="fold")
    for job in jobs:
        state = state_of(job, now)
        cells = [Text(job.id), Text(state.word, _STYLES.get(state.word, "")), Text(f"{span(now - job.created_at)} ago")]
        texts = (job.queue, job.task, state.detail) if several_queues else (job.task, state.detail)
        table.add_row(*cells, *(Text(printable(text)) for text in texts))
    return table


def print_job(job: Job, *, as_json: bool) -> None:
    """All facts of one job, as lines, or as a JSON object."""
    now = datetime.now(UTC)
    if as_json:
        data = {"arguments": shown(job.arguments), "result": shown(job.result)}
        print(json.dumps({**_facts(job, now), **data, "attempts": [_attempt(a) for a in job.attempts]}, indent=2))
        return
    console = plain_console()
    for name, value in _lines(job, now):
        console.print(
            Text.assemble((f"{name:<10} ", "bold"), printable(value).replace("\n", "\n" + " " * 11)), soft_wrap=True
        )
    if job.attempts:
        console.print()
        _print_attempts(console, job.attempts)
    if job.failure is not None and job.failure.traceback:
        console.print()
        console.print(Text(printable(job.failure.traceback.rstrip())), soft_wrap=True)


def _lines(job: Job, now: datetime) -> Iterable[tuple[str, str]]:
    state = state_of(job, now)
    word = job.status.value if state.word == job.status else f"{job.status.value}, {state.word}"
    yield "job", job.id
    yield "task", job.task
    yield "status", f"{word}: {state.detail}" if state.detail else word
    yield "queue", f"{job.queue}, priority {job.priority}"
    yield "attempt", f"{job.attempt}, failures {job.failures}, deaths {job.deaths}"
    if job.max_attempts is not None or job.timeout is not None:
        yield "limits", ", ".join(_limits(job))
    for name, text in (("owner", job.owner), ("unique", job.unique), ("process", job.process)):
        if text is not None:
            yield name, text
    yield from _times(job, now)
    if progress := progress_in(job.progress):
        yield "progress", progress
    yield "arguments", data_of(job.arguments)
    yield from _ending(job)


def _times(job: Job, now: datetime) -> Iterable[tuple[str, str]]:
    times = (
        ("created", job.created_at),
        ("run at", job.run_at),
        ("handed", job.handed_at),
        ("expires", job.expires_at),
        ("started", job.started_at),
        ("stop asked", job.cancel_asked_at),
        ("finished", job.finished_at),
    )
    for name, at in times:
        if at is not None:
            yield name, _time(at, now)


def _ending(job: Job) -> Iterable[tuple[str, str]]:
    if job.result is not None:
        yield "result", data_of(job.result)
    if job.note is not None:
        yield "note", job.note
    if job.failure is not None:
        yield "failure", f"{job.failure.kind}: {job.failure.message}"
        if job.failure.signature:
            yield "signature", job.failure.signature


def _limits(job: Job) -> Iterable[str]:
    """What was said of the call in place of what its task says."""
    if job.max_attempts is not None:
        yield f"max_attempts {job.max_attempts}"
    if job.timeout is not None:
        yield f"timeout {job.timeout:g} s"


def _print_attempts(console: Console, attempts: Sequence[Attempt]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("attempt", "outcome", "ended", "seconds", "detail"):
        table.add_column(name, overflow="fold", justify="right" if name in ("attempt", "seconds") else "left")
    for attempt in attempts:
        lasted = "" if attempt.started_at is None else f"{(attempt.ended_at - attempt.started_at).total_seconds():.3f}"
        detail = attempt.note or ("" if attempt.failure is None else summary(attempt.failure))
        texts = (str(attempt.number), attempt.outcome, f"{attempt.ended_at:%Y-%m-%d %H:%M:%S}", lasted, detail)
        table.add_row(*(Text(printable(text)) for text in texts))
    print_table(console, table)


def _facts(job: Job, now: datetime) -> dict[str, Any]:
    state = state_of(job, now)
    return {
        "id": job.id,
        "task": job.task,
        "queue": job.queue,
        "priority": job.priority,
        "status": job.status.value,
        "state": state.word,
        "detail": state.detail,
        "attempt": job.attempt,
        "failures": job.failures,
        "deaths": job.deaths,
        "failure": _failure(job.failure),
        "note": job.note,
        "owner": job.owner,
        "unique": job.unique,
        "max_attempts": job.max_attempts,
        "timeout": job.timeout,
        "process": job.process,
        "progress": shown(job.progress),
        "cancel_asked_at": _iso(job.cancel_asked_at),
        "created_at": job.created_at.isoformat(),
        "run_at": job.run_at.isoformat(),
        "handed_at": _iso(job.handed_at),
        "started_at": _iso(job.started_at),
        "finished_at": _iso(job.finished_at),
        "expires_at": _iso(job.expires_at),
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "outcome": attempt.outcome,
        "started_at": _iso(attempt.started_at),
        "ended_at": attempt.ended_at.isoformat(),
        "failure": _failure(attempt.failure),
        "note": attempt.note,
    }


def _failure(failure: Failure | None) -> dict[str, str] | None:
    if failure is None:
        return None
    return asdict(failure)


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _time(at: datetime, now: datetime) -> str:
    how_far = f"{span(now - at)} ago" if at <= now else f"in {span(at - now)}"
    return f"{at:%Y-%m-%d %H:%M:%S} UTC, {how_far}"


def data_of(data: str) -> str:
    """Arguments or a result, as people read them; what looks secret is not in it."""
    return json.dumps(shown(data), indent=2, ensure_ascii=False)


def plain_console() -> Console:
    """Standard output, on which nothing that is shown is taken for markup."""
    return Console(highlight=False, markup=False, emoji=False)


def print_table(console: Console, table: Table) -> None:
    """A table that loses nothing where no terminal says how wide a line may be."""
    if not console.is_terminal:  # into a file or another program: as wide as it is
        console.width = console.measure(table, options=console.options.update(max_width=_WIDEST)).maximum
    console.print(table)
