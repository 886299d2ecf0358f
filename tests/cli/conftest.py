"""The world of these tests: one folder with a program in it, a store, and the real command as processes."""

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
import sysconfig
import termios
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, chdir, suppress
from pathlib import Path
from typing import Any, TypeVar

import apsw
import pytest
from typer.testing import CliRunner, Result

from afterward import Afterward, Job
from afterward.cli.commands import app
from afterward.identity import new_id
from afterward.job import Lease, NewJob, Outcome, Placement
from afterward.job import Process as Joining
from afterward.stores.handing import HandOver
from afterward.stores.sql import load_migrations
from afterward.stores.sqlite import SQLiteStore
from afterward.stores.sqlite.connect import APPLICATION_ID
from tests.support.insides import intake_of
from tests.support.processes import Process, Starter
from tests.support.waiting import wait_until

T = TypeVar("T")

AFTERWARD = str(Path(sysconfig.get_path("scripts")) / "afterward")
SHOP = Path(__file__).with_name("shop.py")


class Command:
    """A running `afterward` command, whose output is in a file."""

    def __init__(self, arguments: Sequence[str], process: Process) -> None:
        self.arguments = arguments
        self._process = process
        self.pid = process.pid

    def output(self) -> str:
        """What it, and its children, have said until now."""
        return self._process.output()

    def wait_for(self, pattern: str, count: int = 1) -> list[str]:
        """Wait until it has said this so many times; what the pattern's group matched."""
        deadline = time.monotonic() + 30
        while True:
            over = self.has_ended() or time.monotonic() > deadline
            found = re.findall(pattern, self.output())
            if len(found) >= count:
                return found
            if over:
                pytest.fail(f"{self.arguments} does not say {pattern!r} {count} times; it says:\n{self.output()}")
            time.sleep(0.01)

    def workers(self, count: int) -> list[int]:
        """The ids of the worker processes, once so many have been started and are at work."""
        self.wait_for(r"worker\.started", count)
        return [int(pid) for pid in self.wait_for(r"process_started pid=(\d+)", count)]

    def send(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to this process alone."""
        self._process.terminate(number)

    def send_to_all(self, number: signal.Signals) -> None:
        """Send a signal to it and to all its children, as a terminal and a service manager do."""
        os.killpg(self.pid, number)

    def wait(self, seconds: float = 30) -> int:
        """Wait for its end; its exit code."""
        return self._process.wait(seconds)

    def has_ended(self) -> bool:
        """Has it, by now?"""
        return not self._process.is_alive()

    def kill(self) -> None:
        """End it and all its children, however they stand; lawful when they have ended."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


class OnTerminal:
    """A command at whose other end a person sits: what it draws can be read, and it can be typed to."""

    def __init__(self, arguments: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, 120))
        self._process = subprocess.Popen(
            [AFTERWARD, *arguments],
            env=environment | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "24"},
            cwd=folder,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.pid = self._process.pid
        self._said = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                read = os.read(self._master, 65536)
            except OSError:  # nobody has the other end any more
                return
            self._said += read

    def said(self) -> str:
        """What it has written until now, without what moves the cursor or gives colour."""
        text = self._said.decode(errors="replace").replace("\r\n", "\n")
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)

    def wait_for(self, text: str) -> None:
        """Wait until it has said this."""
        wait_until(lambda: text in self.said() or self._process.poll() is not None, f"it says {text!r}", seconds=30)
        assert text in self.said(), self.said()

    def type(self, text: str) -> None:
        """Type this, with a return."""
        os.write(self._master, text.encode() + b"\n")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, as Ctrl-C does."""
        self._process.send_signal(number)

    def wait(self, seconds: float = 30) -> int:
        """Wait for its end; its exit code."""
        code = self._process.wait(timeout=seconds)
        self._reader.join(seconds)
        return code

    def close(self) -> None:
        """End it, however it stands."""
        self._process.kill()
        self._process.wait(30)
        self._reader.join(30)
        os.close(self._master)


class World:
    """A folder with the program `shop.py` and a store, and the commands run in it."""

    def __init__(self, folder: Path, outputs: Path, starter: Starter, commands: ExitStack) -> None:
        self.folder = folder
        self._outputs = outputs
        self._starter = starter
        self.database = folder / "jobs.db"
        self._commands = commands
        self._starts = 0
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("AFTERWARD_")}
        self.environment |= {"AFTERWARD_URL": f"sqlite:///{self.database}", "COLUMNS": "100"}
        self.program("shop", SHOP.read_text())

    def program(self, module: str, text: str) -> None:
        """Put another module into the folder."""
        (self.folder / f"{module}.py").write_text(text)

    def run(self, *arguments: str, seconds: float = 40) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        output, errors = self._output(), self._output()
        process = self._start(arguments, output, errors)
        try:
            code = process.wait(seconds)
        finally:
            process.kill()
        return subprocess.CompletedProcess(arguments, code, output.read_text(), errors.read_text())

    def run_python(self, *arguments: str, seconds: float = 40) -> "subprocess.CompletedProcess[str]":
        """Run Python in this world."""
        return self._run([sys.executable, *arguments], seconds)

    def run_shell(self, line: str, seconds: float = 40) -> "subprocess.CompletedProcess[str]":
        """Run a line of shell in this world."""
        return self._run(["sh", "-c", line], seconds)

    def _run(self, command: Sequence[str], seconds: float) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command,
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )

    def start(self, *arguments: str) -> Command:
        """Start a command; it is ended with the test."""
        command = Command(arguments, self._start(arguments, self._output()))
        self._commands.callback(command.kill)
        return command

    def _start(self, arguments: Sequence[str], output: Path, errors: Path | None = None) -> Process:
        return self._starter.start(
            AFTERWARD, *arguments, environment=self.environment, output=output, errors=errors, folder=self.folder
        )

    def _output(self) -> Path:
        self._starts += 1
        return self._outputs / f"output-{self._starts}.txt"

    def on_terminal(self, *arguments: str) -> OnTerminal:
        """Start a command on a terminal; it is ended with the test."""
        command = OnTerminal(arguments, self.folder, self.environment)
        self._commands.callback(command.close)
        return command

    def type(self, *arguments: str) -> Result:
        """Run a command that imports no program in this process, which is quicker. It reads no answers."""
        with chdir(self.folder):
            return CliRunner().invoke(app, list(arguments), env={**self.environment, "COLUMNS": "200"})

    def start_worker(self, *options: str, target: str = "shop:app") -> Command:
        """Start `afterward worker`, and wait until it is at work."""
        command = self.start("worker", target, *options)
        command.wait_for(r"worker\.started")
        return command

    def enqueue(self, task: str, queue: str = "default", **arguments: Any) -> str:
        """Store a job of the shop, from this process; its id."""
        return self.enqueue_all(NewJob(new_id(), f"shop:{task}", queue, 0, json.dumps(arguments)))[0]

    def enqueue_all(self, *jobs: NewJob, database: Path | None = None, clock_offset: float = 0.0) -> list[str]:
        """Store jobs, from this process; their ids. `clock_offset`: how far the store's clock is off meanwhile."""
        store = SQLiteStore(database or self.database, clock=lambda: time.time() + clock_offset)

        async def put() -> None:
            tasks = Afterward(store=store)
            async with tasks.running(None):
                await intake_of(tasks).put(jobs)  # whatever tasks they are of: it is another program that declares them

        asyncio.run(put())
        return [job.id for job in jobs]

    def end(self, outcome: Outcome, *jobs: NewJob, clock_offset: float = 0.0) -> list[str]:
        """Store jobs that have one attempt, which ended so; their ids."""
        store = SQLiteStore(self.database, clock=lambda: time.time() + clock_offset)

        async def put() -> None:
            await store.open()
            await store.join(Joining(me := new_id(), os.getpid(), "here"))
            await store.enqueue([(job, Placement.leased) for job in jobs], me)
            leases = [Lease(job.id, 1, me, job.task, job.arguments) for job in jobs]
            assert all(await store.finish([(lease, outcome) for lease in leases]))
            await store.leave(me)
            await store.close()

        asyncio.run(put())
        return [job.id for job in jobs]

    def lease(self, *jobs: NewJob) -> list[str]:
        """Store jobs that run, until somebody sees that the process is gone that ran them; their ids."""

        async def put(store: SQLiteStore) -> None:
            await store.join(Joining(me := new_id(), 4711, "here"))
            await store.enqueue([(job, Placement.leased) for job in jobs], me)

        self.with_store(put)
        return [job.id for job in jobs]

    def hand_over(self, *jobs: NewJob) -> list[str]:
        """Store jobs that are in the hands of another system; their ids."""

        async def put(store: SQLiteStore) -> None:
            await store.join(Joining(me := new_id(), os.getpid(), "here"))
            await store.enqueue([(job, Placement.leased) for job in jobs], me)
            leases = [Lease(job.id, 1, me, job.task, job.arguments) for job in jobs]
            assert all(await store.hand_over([HandOver(lease) for lease in leases]))
            await store.leave(me)

        self.with_store(put)
        return [job.id for job in jobs]

    def with_store(self, work: Callable[[SQLiteStore], Awaitable[T]]) -> T:
        """What this comes to, with the store open in this process."""

        async def run() -> T:
            store = SQLiteStore(self.database)
            await store.open()
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(run())

    def make_older_store(self) -> tuple[int, int]:
        """Make a store as the version before the newest schema has left it; its schema, and the newest."""
        *older, (newest, _) = load_migrations("afterward.stores.sqlite")
        connection = apsw.Connection(str(self.database))
        connection.pragma("journal_mode", "wal")
        connection.pragma("application_id", APPLICATION_ID)
        for number, statements in older:
            connection.execute(statements)
            connection.pragma("user_version", number)
        connection.close()
        return older[-1][0], newest

    def job(self, id: str) -> Job:  # noqa: A002 - it is the job's
        """A job as the store holds it now."""
        [found] = self.jobs([id])
        return found

    def jobs(self, ids: Sequence[str]) -> list[Job]:
        """Jobs as the store holds them now."""

        async def read(store: SQLiteStore) -> list[Job | None]:
            return list(await store.get(ids))

        found = self.with_store(read)
        assert None not in found
        return [job for job in found if job is not None]

    def wait_for_status(self, id: str, status: str, seconds: float = 30) -> Job:  # noqa: A002 - it is the job's
        """Wait until a job stands there."""
        wait_until(lambda: self.job(id).status == status, f"job {id} is {status}", seconds)
        return self.job(id)

    def lines(self, name: str) -> list[str]:
        """What tasks have written to one of their files."""
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def world(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, starter: Starter) -> Iterator[World]:
    """A world whose processes are ended with the test, however it ends. When it fails, pytest shows what they said."""
    outputs = tmp_path_factory.mktemp("outputs")
    with ExitStack() as commands:
        yield World(tmp_path, outputs, starter, commands)
    for output in sorted(outputs.iterdir()):
        print(f"--- {output.name}\n{output.read_text()}")


def is_alive(pid: int) -> bool:
    """Is there a process of this id, that has not ended? (One that nobody has waited for yet has ended.)"""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # the second, when it is reaped while it is read
        return False
    return state != "Z"
