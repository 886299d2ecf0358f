"""A suspect runs in a child process of its own: if that dies, the cause is known, and nobody else is harmed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

from afterward.dependencies import needs_lifespan
from afterward.engine.executor import failure_of, outcome_of
from afterward.engine.files import END, LOST, Chunks
from afterward.engine.voice import CLEAN_UP_SECONDS, AttemptVoice
from afterward.errors import AttemptTimedOut, FileLost, StoreError, StoreUnavailable, WorkerDied
from afterward.job import Cancelled, Died, EventKind, Failed, Failure, Lease, Outcome, Released, Retry, Succeeded
from afterward.liveness import MAX_DEATHS, SUSPECT_AFTER, SUSPECT_DELAY_SECONDS
from afterward.task import Task
from afterward.uploads import stored_in

_LATE_SECONDS = 1.5
"""What a child gets beyond the task's timeout, which it keeps by itself unless its interpreter is blocked."""

_BEGIN_SECONDS = 60.0
"""What a child gets to receive its files, to import the task, and to begin the lifespans that it asks for."""

_PART_BYTES = 64 * 1024

LEAVES = b"leaves"
"""What a child says that is about to end its attempt by itself."""

SETTLES = b"settles"
"""What a child says that wants to know when all that it has said is stored: then it is told `SETTLED`, or why not."""

SETTLED, ASKED, UNSETTLED = b"settled", b"asked", b"unsettled "
"""What a child is told: the answers to `SETTLES`; and that it is asked to end."""

_OUTCOMES: dict[str, type[Any]] = {kind.__name__: kind for kind in (Succeeded, Failed, Cancelled, Retry, Released)}


async def run_in_child(
    task: Task[..., Any],
    lease: Lease,
    voice: AttemptVoice,
    chunks: Chunks,
    leave: Callable[[Lease], None] = lambda _: None,
) -> Outcome:
    """One attempt, in a fresh interpreter that imports the task's module. Cancelled, it kills the child.

    What the child says is said by `voice`. When that is asked to end, the child is; killed, when it does not.

    The content of its files, from `chunks`, follows the order: the child has no need of the store, unless its function
    ends the attempt by itself. Before it does, `leave` is called.
    """
    module, _, path = task.name_in_code.partition(":")
    if "<locals>" in path:
        reason = WorkerDied(
            f"its worker process died {lease.deaths} times while running it; it cannot be tried in a process of its "
            f"own, for {path} is defined inside a function: define it at module level"
        )
        return Died(failure_of(reason, task.name), 0.0, final=True)
    order = {
        "sys_path": sys.path, "module": module, "path": path, "id": lease.id, "attempt": lease.attempt,
        "process": lease.process, "task": lease.task, "arguments": lease.arguments, "context": lease.context,
        "failures": lease.failures, "deaths": lease.deaths, "max_attempts": lease.max_attempts,
        "timeout": lease.timeout, "log_level": voice.log_level, "files": (files := stored_in(lease.arguments)),
        "apps": task.owner.apps.places() if needs_lifespan(task.dependencies) else [],
    }  # fmt: skip
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "afterward.engine.child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # a signal to the whole group is for its parent to pass on
        )
    except OSError as error:  # no memory, no process, no descriptor left: nothing that the job has done
        return _not_begun(f"no child process could be started: {error}", lease)
    stdin, stdout = cast("asyncio.StreamWriter", child.stdin), cast("asyncio.StreamReader", child.stdout)
    stopping = _Stopping(child)
    try:
        stdin.write(json.dumps(order).encode() + b"\n")  # and left open: its end tells the child that we are gone
        if (why := await _why_not_begun(child, files, chunks)) is not None:  # no doing of the job's
            return _not_begun(why, lease)
        # From here on, time counts, and a death is the job's.
        timeout = task.task_options.timeout if lease.timeout is None else lease.timeout
        try:
            async with asyncio.timeout(None if timeout is None else timeout + _LATE_SECONDS):
                voice.stop_by(stopping.stop)
                said = await _read(stdout, _Conversation(stdin, voice, lambda: leave(lease)))
                code = await child.wait()
        except TimeoutError:
            late = AttemptTimedOut(f"the attempt took longer than its timeout of {timeout} s")
            return outcome_of(late, task, lease)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
        stdin.close()
    if stopping.has_killed:
        return Cancelled(
            f"cancelled while running; it had not ended in {CLEAN_UP_SECONDS:g} s, so its process was killed"
        )
    return _outcome(said, code, lease)


class _Stopping:
    """Has a child end: it is asked to at first, and killed when that is wanted once more."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child
        self.has_asked = self.has_killed = False

    def stop(self) -> None:
        stdin = cast("asyncio.StreamWriter", self._child.stdin)
        if not self.has_asked:
            self.has_asked = True
            stdin.write(ASKED + b"\n")
        elif self._child.returncode is None:
            self.has_killed = True
            self._child.kill()


class _Conversation:
    """What a child says while it runs, line by line, and what it is answered."""

    def __init__(self, stdin: asyncio.StreamWriter, voice: AttemptVoice, leave: Callable[[], None]) -> None:
        self._stdin = stdin
        self._voice = voice
        self._leave = leave

    async def hear(self, line: bytes) -> None:
        if line == LEAVES:
            self._leave()
        elif line == SETTLES:
            self._stdin.write(await self._settle() + b"\n")
        else:
            kind, data = json.loads(line)
            await self._voice.give(EventKind(kind), data)

    async def _settle(self) -> bytes:
        try:
            await self._voice.settle()
        except StoreUnavailable as error:
            return UNSETTLED + str(error).encode()
        return SETTLED


async def _read(stdout: asyncio.StreamReader, conversation: _Conversation) -> bytes:
    """What the child says in the end, which no line ends."""
    parts: list[bytes] = []
    while part := await stdout.read(_PART_BYTES):
        parts.append(part)
        if b"\n" in part:
            *lines, rest = b"".join(parts).split(b"\n")
            parts = [rest]
            for line in lines:
                await conversation.hear(line)
    return b"".join(parts)


async def _why_not_begun(child: asyncio.subprocess.Process, files: Sequence[str], chunks: Chunks) -> str | None:
    """Hand the files over, and wait until the child says that it begins: then None."""
    stdin, stdout = cast("asyncio.StreamWriter", child.stdin), cast("asyncio.StreamReader", child.stdout)
    try:
        async with asyncio.timeout(_BEGIN_SECONDS):
            with contextlib.suppress(ConnectionError):  # it has ended, and is asked why
                for file in files:
                    await _hand_over(file, chunks, stdin)
            if await stdout.readline():
                return None
            return f"its child process ended before it began ({_ended(await child.wait())})"
    except StoreError as error:
        return f"its files could not be had: {error}"
    except TimeoutError:
        return (
            f"its child process had not begun after {_BEGIN_SECONDS:g} s; look for what hangs while the task's module "
            f"is imported, or the application started"
        )


async def _hand_over(file: str, chunks: Chunks, stdin: asyncio.StreamWriter) -> None:
    """One file, as the child reads it (`child.receive`): each chunk with its length before it."""
    try:
        async for data in chunks(file):
            stdin.write(len(data).to_bytes(4, "big") + data if data else b"")
            await stdin.drain()
        stdin.write(END)
    except FileLost:
        stdin.write(LOST)


def _not_begun(why: str, lease: Lease) -> Released:
    return Released(why, min(60.0, 2.0 ** min(lease.attempt - SUSPECT_AFTER, 6)))


def _ended(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _outcome(said: bytes, code: int, lease: Lease) -> Outcome:
    if code == 0 and said:
        answer = json.loads(said)
        kind, values = answer["outcome"], answer["values"]
        if "failure" in values:
            values["failure"] = Failure(**values["failure"])
        outcome: Outcome = _OUTCOMES[kind](**values)
        return outcome
    deaths = lease.deaths + 1
    death = WorkerDied(f"the process that ran it died ({_ended(code)}); deaths so far: {deaths}")
    return Died(failure_of(death, lease.task), SUSPECT_DELAY_SECONDS * 2 ** (deaths - 1), final=deaths >= MAX_DEATHS)
