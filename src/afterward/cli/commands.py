"""What can be typed: the commands, their options, and what their end means.

Exit codes: 0, done; 1, it could not be done, or a check has found something; 2, what was typed, or what it names, can
never work.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from afterward.errors import AfterwardError, ConfigurationError
from afterward.job import Status

FAILURE = 1
USAGE = 2

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    # Its tracebacks can show the values of local variables: arguments of tasks, settings.
    pretty_exceptions_enable=False,
    help="Durable background tasks for FastAPI.",
)

_Store = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="The store; by default AFTERWARD_URL, else sqlite:///afterward.db."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def worker(
    target: Annotated[
        str,
        typer.Argument(metavar="MODULE:NAME", help="An Afterward, or the app it is installed on, e.g. main:app."),
    ],
    *,
    processes: Annotated[int, typer.Option(min=1, help="How many processes, kept alive by this one.")] = 1,
    concurrency: Annotated[int, typer.Option(min=1, help="`async def` jobs at once, in each process.")] = 100,
    threads: Annotated[int, typer.Option(min=1, help="`def` jobs at once, in each process.")] = 16,
    queue: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A queue to serve; may be given again. By default all.")
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="What running jobs get to end in at a shutdown.")
    ] = 10.0,
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False,
) -> None:
    """Run jobs until SIGTERM or SIGINT; then let running jobs end, and release those that do not."""
    with _errors_told():
        if processes > 1:
            from afterward.cli.supervisor import supervise

            options = ["--concurrency", str(concurrency), "--threads", str(threads), "--grace", str(grace)]
            for name in queue or ():
                options += ["--queue", name]
            raise typer.Exit(supervise(target, processes, options, grace))
        from afterward.cli.worker import work
        from afterward.engine.worker import WorkerOptions

        raise typer.Exit(work(target, WorkerOptions(concurrency, threads, queue or None, grace), supervised=supervised))


@app.command()
def jobs(
    *,
    store: _Store = None,
    status: Annotated[Status | None, typer.Option(help="Only jobs of this status.")] = None,
    task: Annotated[str | None, typer.Option(metavar="NAME", help="Only jobs of this task.")] = None,
    queue: Annotated[str | None, typer.Option(metavar="NAME", help="Only jobs of this queue.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, at most.")] = 50,
    json: _Json = False,
) -> None:
    """List jobs, newest first."""
    from afterward.cli import output
    from afterward.cli.reading import newest

    with _errors_told():
        found, more = asyncio.run(newest(store, status=status, task=task, queue=queue, limit=limit))
        output.print_jobs(found, more=more, as_json=json)


@app.command()
def job(
    id: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")],  # noqa: A002 - it names the argument
    *,
    store: _Store = None,
    json: _Json = False,
) -> None:
    """Show all that is known of one job. Values that look secret are not shown."""
    from afterward.cli import output
    from afterward.cli.reading import one

    with _errors_told():
        output.print_job(asyncio.run(one(store, id)), as_json=json)


@app.command()
def check(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH", help="Files and folders; by default the current folder.")
    ] = None,
    *,
    verbose: Annotated[bool, typer.Option("--verbose", help="Also say what cannot be told.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """List what of a code base would lose work, or be refused. Nothing of it is imported or run."""
    from afterward.cli.check import check, print_report

    with _errors_told():
        paths = paths or [Path()]
        for path in paths:
            if not path.exists():
                raise ConfigurationError(f"there is no file or folder {path}")
        report = check(paths)
        print_report(report, verbose=verbose, as_json=json)
        raise typer.Exit(FAILURE if report.findings else 0)


@contextmanager
def _errors_told() -> Generator[None]:
    try:
        yield
    except AfterwardError as error:
        print(f"afterward: {error}", file=sys.stderr)
        raise typer.Exit(USAGE if isinstance(error, ConfigurationError) else FAILURE) from None
