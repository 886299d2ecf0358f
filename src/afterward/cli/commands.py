"""What can be typed: the commands, their options, and what their end means (`exits`)."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Annotated

import typer

from afterward.cli import options
from afterward.cli.exits import DONE, EPILOG, FAILURE, code_of, errors_told
from afterward.errors import ConfigurationError
from afterward.job import OnDuplicate, Status

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    # Its tracebacks can show the values of local variables: arguments of tasks, settings.
    pretty_exceptions_enable=False,
    help="Durable background tasks for FastAPI.",
    epilog=EPILOG,
)


@app.command(epilog=EPILOG)
def worker(
    target: options.Target,
    *,
    processes: Annotated[int, typer.Option(min=1, max=1_000, help="How many processes, kept alive by this one.")] = 1,
    concurrency: Annotated[
        int, typer.Option(min=1, max=100_000, help="`async def` jobs at once, in each process.")
    ] = 100,
    threads: Annotated[int, typer.Option(min=1, max=100_000, help="`def` jobs at once, in each process.")] = 16,
    queue: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A queue to serve; may be given again. By default all.")
    ] = None,
    grace: options.Grace = 10.0,
    children: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1_000,
            help="Jobs in child processes at once, of each process. By default one for each processor.",
        ),
    ] = None,
    jobs_per_child: Annotated[
        int,
        typer.Option(min=1, max=1_000_000, help="How many jobs one child process runs, before another replaces it."),
    ] = 100,
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False,
) -> None:
    """Run jobs until SIGTERM or SIGINT; then let running jobs end, and release those that do not."""
    with errors_told():
        if processes > 1:
            from afterward.cli.supervisor import supervise

            given = ["--concurrency", str(concurrency), "--threads", str(threads), "--grace", str(grace)]
            given += ["--jobs-per-child", str(jobs_per_child), *(["--children", str(children)] if children else [])]
            for name in queue or ():
                given += ["--queue", name]
            raise typer.Exit(supervise(target, processes, given, grace))
        from afterward.cli.worker import work
        from afterward.engine.worker import WorkerOptions

        worker_options = WorkerOptions(concurrency, threads, queue or None, grace, children, jobs_per_child)
        raise typer.Exit(work(target, worker_options, supervised=supervised))


@app.command(epilog=EPILOG)
def jobs(
    *,
    store: options.Store = None,
    status: options.Statuses = None,
    task: options.Task = None,
    queue: options.Queue = None,
    since: options.Since = None,
    owner: options.Owner = None,
    signature: options.Signature = None,
    limit: options.Limit = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with each change, until Ctrl-C.")] = False,
    json: options.Json = False,
) -> None:
    """List jobs, newest first."""
    from afterward.cli import output
    from afterward.cli.following import follow as follow_jobs
    from afterward.cli.reading import filters, newest

    with errors_told():
        wanted = filters(status, task, queue, since, owner=owner, signature=signature)
        if follow:
            with contextlib.suppress(KeyboardInterrupt):  # somebody has seen enough
                asyncio.run(follow_jobs(store, wanted, limit, as_json=json))
            return
        found, more = asyncio.run(newest(store, wanted, limit))
        output.print_jobs(found, more=more, as_json=json)


@app.command(epilog=EPILOG)
def job(
    id: options.Id,  # noqa: A002 - it names the argument
    *,
    store: options.Store = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
    json: options.Json = False,
) -> None:
    """Show all that is known of one job. Values that look secret are not shown."""
    from afterward.cli import output
    from afterward.cli.reading import ended, one

    with errors_told():
        waits = wait or timeout is not None
        found = asyncio.run(ended(store, id, timeout) if waits else one(store, id))
        output.print_job(found, as_json=json)
        raise typer.Exit(code_of(found) if waits else DONE)


@app.command(epilog=EPILOG)
def why(
    id: options.Id,  # noqa: A002 - it names the argument
    *,
    store: options.Store = None,
    json: options.Json = False,
) -> None:
    """Say why a job is not running, or not done, and what can be done about it."""
    from afterward.cli.whys import explained, print_reasons

    with errors_told():
        found, reasons = asyncio.run(explained(store, id))
        print_reasons(found, reasons, as_json=json)


@app.command(epilog=EPILOG)
def events(
    id: options.Id,  # noqa: A002 - it names the argument
    *,
    store: options.Store = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended, or Ctrl-C.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Print what a job has said: its progress, its log, its items. Values that look secret are not shown."""
    from afterward.cli.listening import listen

    with errors_told(), contextlib.suppress(KeyboardInterrupt):  # somebody has seen enough
        asyncio.run(listen(store, id, on=follow, as_json=json))


@app.command(epilog=EPILOG)
def failures(
    *,
    store: options.Store = None,
    limit: options.Limit = 50,
    json: options.Json = False,
) -> None:
    """List what fails, for good or to be tried again, by its most likely cause; what failed last comes first."""
    from afterward.cli.failing import failed, print_failures

    with errors_told():
        print_failures(asyncio.run(failed(store, limit)), as_json=json)


@app.command(epilog=EPILOG)
def stats(
    *,
    store: options.Store = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object, in one line.")] = False,
) -> None:
    """Say of each queue how many jobs are ready, wait for their time, are held, run, and are with Celery."""
    from afterward.cli.stats import count, print_stats

    with errors_told():
        print_stats(*asyncio.run(count(store)), as_json=json)


@app.command(epilog=EPILOG)
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
    from afterward.cli.paths import is_there

    with errors_told():
        paths = paths or [Path()]
        for path in paths:
            if not is_there(path):
                raise ConfigurationError(f"there is no file or folder {path}")
        report = check(paths)
        print_report(report, verbose=verbose, as_json=json)
        raise typer.Exit(FAILURE if report.findings else 0)


@app.command(epilog=EPILOG)
def retry(
    ids: options.Ids = None,
    *,
    store: options.Store = None,
    every: options.All = False,
    status: options.Statuses = None,
    task: options.Task = None,
    queue: options.Queue = None,
    since: options.Since = None,
    signature: options.Signature = None,
    yes: options.Yes = False,
) -> None:
    """Queue failed or cancelled jobs again, due at once. --all: the failed ones, or those of --status."""
    from afterward.cli.moving import RETRY, move
    from afterward.cli.reading import filters

    with errors_told():
        wanted = filters(status, task, queue, since, signature=signature)
        raise typer.Exit(move(store, RETRY, ids, wanted, every=every, yes=yes))


@app.command(epilog=EPILOG)
def cancel(
    ids: options.Ids = None,
    *,
    store: options.Store = None,
    every: options.All = False,
    status: options.Statuses = None,
    task: options.Task = None,
    queue: options.Queue = None,
    since: options.Since = None,
    signature: options.Signature = None,
    yes: options.Yes = False,
) -> None:
    """Cancel jobs that wait, and ask those that run to end. --all: those that wait, or those of --status."""
    from afterward.cli.moving import CANCEL, move
    from afterward.cli.reading import filters

    with errors_told():
        wanted = filters(status, task, queue, since, signature=signature)
        raise typer.Exit(move(store, CANCEL, ids, wanted, every=every, yes=yes))


@app.command(epilog=EPILOG)
def hasten(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of jobs, or how they begin.")],
    *,
    store: options.Store = None,
) -> None:
    """Make jobs that wait for their time due now."""
    from afterward.cli.moving import HASTEN, move
    from afterward.cli.reading import Filters

    with errors_told():
        raise typer.Exit(move(store, HASTEN, ids, Filters(), every=False, yes=True))


@app.command(epilog=EPILOG)
def pause(
    queue: options.QueueName,
    *,
    store: options.Store = None,
    by: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who says so; by default your name, and the host's.")
    ] = None,
) -> None:
    """Have nobody begin the jobs of a queue, until it is resumed. What runs goes on."""
    from afterward.cli import pausing

    with errors_told():
        asyncio.run(pausing.pause(store, queue, by))


@app.command(epilog=EPILOG)
def resume(
    queue: options.QueueName,
    *,
    store: options.Store = None,
) -> None:
    """Let the jobs of a queue be begun again."""
    from afterward.cli import pausing

    with errors_told():
        asyncio.run(pausing.resume(store, queue))


@app.command(epilog=EPILOG)
def run(
    target: options.Target,
    id: options.Id,  # noqa: A002 - it names the argument
    *,
    now: Annotated[bool, typer.Option("--now", help="Also before it is due.")] = False,
    debug: Annotated[bool, typer.Option("--pdb", help="Open the debugger where the task raises.")] = False,
) -> None:
    """Run one queued job here, in the foreground, to look for a mistake. Ctrl-C releases it at no cost."""
    from afterward.cli.foreground import run_here

    with errors_told():
        raise typer.Exit(run_here(target, id, early=now, debug=debug))


@app.command(epilog=EPILOG)
def enqueue(
    target: options.Target,
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task's name, or the last part of it.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=VALUE", help="Values are JSON where they fit, else text.")
    ] = None,
    *,
    args_json: Annotated[str | None, typer.Option(metavar="OBJECT", help="Arguments as one JSON object.")] = None,
    delay: Annotated[float | None, options.span_option("Not before then: 90s, 5m, 2h or 7d from now.")] = None,
    queue: Annotated[str | None, typer.Option(metavar="NAME", help="In place of the task's queue.")] = None,
    priority: Annotated[int | None, typer.Option(help="Larger is more urgent.")] = None,
    unique: Annotated[str | None, typer.Option(metavar="KEY", help="A key that one unfinished job can have.")] = None,
    on_duplicate: Annotated[OnDuplicate, typer.Option(help="What to do when the key is taken.")] = OnDuplicate.keep,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
    json: options.Json = False,
) -> None:
    """Add a job; its id is printed. It is checked as `task.enqueue(…)` checks it."""
    from afterward.cli import calling

    with errors_told():
        said = {"delay": delay, "queue": queue, "priority": priority, "unique": unique}
        code = calling.enqueue(
            target,
            task,
            arguments or [],
            args_json,
            {**said, "on_duplicate": on_duplicate.value},
            wait=wait or timeout is not None,
            timeout=timeout,
            as_json=json,
        )
        raise typer.Exit(code)


@app.command(epilog=EPILOG)
def prune(
    *,
    store: options.Store = None,
    older_than: Annotated[
        float | None, options.span_option("Only jobs that ended longer ago than that; by default 24h.")
    ] = None,
    status: Annotated[
        list[Status] | None,
        typer.Option(help="Jobs that ended so; may be given again. By default succeeded and cancelled."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many they are.")] = False,
    yes: options.Yes = False,
) -> None:
    """Forget jobs that ended long ago, in steps so small that nobody waits for them."""
    from afterward.cli import moving

    with errors_told():
        ended = status or [Status.succeeded, Status.cancelled]
        age = moving.DEFAULT_AGE if older_than is None else older_than
        raise typer.Exit(asyncio.run(moving.prune(store, ended, age, dry_run=dry_run, yes=yes)))


@app.command(epilog=EPILOG)
def migrate(
    target: Annotated[
        str | None, typer.Argument(metavar="[MODULE:NAME]", help="The app whose stores are to be brought up to date.")
    ] = None,
    *,
    store: options.Store = None,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; end with 1 if there is something to do.")
    ] = False,
) -> None:
    """Bring a store to the schema of this version, or make it where there is none."""
    from afterward.cli import migrating

    with errors_told():
        raise typer.Exit(migrating.migrate(target, store, only_check=check))


@app.command(epilog=EPILOG)
def doctor(
    target: Annotated[
        str | None, typer.Argument(metavar="[MODULE:NAME]", help="The app whose tasks and stores are to be looked at.")
    ] = None,
    *,
    store: options.Store = None,
    time_limit: Annotated[
        float | None, options.span_option("How long to look for damage in the file; by default 30s.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="A warning ends it with 1 as well.")] = False,
    json: options.Json = False,
) -> None:
    """Say what is wrong or risky with the store, the disk, the clock and the versions, and the fix."""
    from afterward.cli.doctor import visit

    with errors_told():
        findings = visit.findings(target, store, visit.CHECK_SECONDS if time_limit is None else time_limit)
        raise typer.Exit(visit.tell(findings, strict=strict, as_json=json))
