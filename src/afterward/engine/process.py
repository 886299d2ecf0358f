"""One child process, as its worker sees it: a fresh interpreter that runs one attempt after the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process, SubprocessStreamProtocol
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from afterward.engine.conversation import Conversation
from afterward.engine.executor import failure_of, outcome_of
from afterward.engine.files import END as FILE_ENDS
from afterward.engine.files import LOST, Chunks
from afterward.engine.lifeline import Lifeline
from afterward.engine.memory import MemoryWatch, exceeded
from afterward.engine.orders import ASKED, END, Answer, answer_in, order_for
from afterward.engine.voice import CLEAN_UP_SECONDS, AttemptVoice
from afterward.errors import AttemptTimedOut, FileLost, StoreError, WorkerDied
from afterward.job import Cancelled, Died, Lease, Outcome
from afterward.liveness import MAX_DEATHS, SUSPECT_DELAY_SECONDS
from afterward.task import Task
from afterward.uploads import stored_in

_LATE_SECONDS = 1.5
"""What a child gets beyond the task's timeout, which it keeps by itself unless its interpreter is blocked."""

_BEGIN_SECONDS = 60.0
"""What a child gets to receive its files, to import the task, and to begin the lifespans that it asks for."""

_END_SECONDS = 1.5
"""What a child gets that is told to end; the lifespans that it has begun get a little less."""

_GONE_SECONDS = 2.0
"""How long after the end of a child it is heard still; what it has started may hold its end of the pipe for ever."""

_PART_BYTES = 64 * 1024


class NotBegun(Exception):
    """A child has not come to begin an attempt, which is no doing of the job's. `has_ended`: for it has ended."""

    def __init__(self, why: str, *, has_ended: bool = False) -> None:
        super().__init__(why)
        self.has_ended = has_ended


@dataclass(frozen=True, slots=True)
class Host:
    """What a worker has for its children. `chunks`: of the files in its store. `leave`: an attempt ends itself."""

    chunks: Chunks
    leave: Callable[[Lease], None]
    memory: MemoryWatch


class _Pipes(SubprocessStreamProtocol):
    """When a child has ended, what it has started is ended too; some time after, its pipes are let go of.

    What has a session of its own goes on, and may hold them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=_PART_BYTES, loop=loop)
        self._here = loop
        self._child: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._child = cast("asyncio.SubprocessTransport", transport)

    def process_exited(self) -> None:
        super().process_exited()
        if self._child is not None:
            _kill_group(self._child.get_pid())  # now, for its number may be another's by and by
            self._here.call_later(_GONE_SECONDS, self._child.close)


class Child:
    """Runs one attempt at a time. `runs`: how many it was given. `is_fit`: is it good for another?

    `is_gone`: it was killed, or has ended, and nothing is left of it here.
    """

    def __init__(self, process: Process, lifeline: Lifeline) -> None:
        self._process = process
        self._lifeline = lifeline
        self._stdin = cast("asyncio.StreamWriter", process.stdin)
        self._stdout = cast("asyncio.StreamReader", process.stdout)
        self._heard: deque[bytes] = deque()
        self._rest: list[bytes] = []
        self.runs = 0
        self.is_fit = True
        self.is_gone = False

    @classmethod
    async def start(cls) -> Child:
        """A new one. Raises `OSError` when there is no memory, no process, or no descriptor left."""
        loop, lifeline = asyncio.get_running_loop(), Lifeline()
        try:
            transport, protocol = await loop.subprocess_exec(
                lambda: _Pipes(loop),
                *(sys.executable, "-m", "afterward.engine.child", *map(str, lifeline.theirs)),
                stdin=PIPE,
                stdout=PIPE,
                stderr=None,
                pass_fds=lifeline.theirs,
                start_new_session=True,  # a signal to the whole group is for its parent to pass on
            )
        except BaseException:
            lifeline.close()
            raise
        finally:
            lifeline.have_handed_over()
        return cls(Process(transport, protocol, loop), lifeline)

    @property
    def pid(self) -> int:
        """By which the system knows it."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Has it not ended, as far as is known?"""
        return self._process.returncode is None

    async def run(self, task: Task[..., Any], lease: Lease, voice: AttemptVoice, host: Host) -> Outcome:
        """One attempt, which speaks by `voice`. Cancelled, it kills the child. Raises `NotBegun`.

        When the voice is asked to end, the child is; it is killed when it does not.
        """
        self.runs += 1
        self.is_fit = False
        answer: Answer | None = None
        try:
            self.tell(order_for(task, lease, voice.log_level))
            await self._begin(stored_in(lease.arguments), host.chunks)
            run = _Run(self, task, lease, voice)
            answer = await run.answer(host)
        finally:
            if answer is None or answer.is_busy:
                await self.kill()
        self.is_fit = answer is not None and not answer.is_spent
        return run.outcome_without_answer() if answer is None else answer.outcome

    async def end(self) -> None:
        """Let it end the lifespans that it has begun, and then itself."""
        self.tell(END)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        await self.kill()

    async def kill(self) -> None:
        """And all that it has started, but for what has a session of its own."""
        self.is_gone = True
        self.die()
        await self._process.wait()
        self._stdin.close()
        self._lifeline.close()

    async def _begin(self, files: Sequence[str], chunks: Chunks) -> None:
        """Hand the files over, and wait until the child says that it begins. From here on, a death is the job's."""
        try:
            async with asyncio.timeout(_BEGIN_SECONDS):
                with contextlib.suppress(ConnectionError):  # it has ended, and is asked why
                    for file in files:
                        await _hand_over(file, chunks, self._stdin)
                if await self.line() is None:
                    await self._process.wait()
                    raise NotBegun(f"its child process ended before it began ({self.ended()})", has_ended=True)
        except StoreError as error:
            raise NotBegun(f"its files could not be had: {error}") from None
        except TimeoutError:
            raise NotBegun(
                f"its child process had not begun after {_BEGIN_SECONDS:g} s; look for what hangs while the task's "
                f"module is imported, or the application started"
            ) from None

    async def line(self) -> bytes | None:
        """The next that it says; None when it has ended."""
        while not self._heard:
            part = await self._stdout.read(_PART_BYTES)
            if not part:
                return None
            self._rest.append(part)
            if b"\n" in part:
                *lines, rest = b"".join(self._rest).split(b"\n")
                self._rest = [rest]
                self._heard.extend(lines)
        return self._heard.popleft()

    def tell(self, line: bytes) -> None:
        """One line, for it to hear; nobody hears it when it has ended."""
        if self.is_alive:
            self._stdin.write(line + b"\n")

    def die(self) -> None:
        """As `kill`, without waiting for it."""
        if self.is_alive:
            _kill_group(self.pid)
            self._process.kill()

    def ended(self) -> str:
        """How it has ended."""
        code = self._process.returncode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


class _Run:
    """One attempt in a child, from when it has begun."""

    def __init__(self, child: Child, task: Task[..., Any], lease: Lease, voice: AttemptVoice) -> None:
        self._child = child
        self._task = task
        self._lease = lease
        self._voice = voice
        self._timeout = task.task_options.timeout if lease.timeout is None else lease.timeout
        self._is_asked = self._is_killed = self._is_late = self._is_over = False
        self._taken: int | None = None

    async def answer(self, host: Host) -> Answer | None:
        """What the child says in the end; None when it has said nothing in its time, or nothing before its death."""
        conversation = Conversation(self._child.tell, self._voice, lambda: host.leave(self._lease))
        with host.memory.over(self._child.pid, self._task.memory, self._end_for_memory):
            try:
                async with asyncio.timeout(None if self._timeout is None else self._timeout + _LATE_SECONDS):
                    self._voice.stop_by(self._stop)
                    while (line := await self._child.line()) is not None:
                        if (answer := answer_in(line)) is not None:
                            return answer
                        await conversation.hear(line)
            except TimeoutError:
                self._is_late = True
            finally:
                self._is_over = True
        return None

    def outcome_without_answer(self) -> Outcome:
        """Why there is none. The child has ended."""
        if self._is_killed:
            return Cancelled(
                f"cancelled while running; it had not ended in {CLEAN_UP_SECONDS:g} s, so its process was killed"
            )
        if self._taken is not None and self._task.memory is not None:
            return outcome_of(exceeded(self._task.memory, self._taken), self._task, self._lease)
        if self._is_late:
            late = AttemptTimedOut(f"the attempt took longer than its timeout of {self._timeout:g} s")
            return outcome_of(late, self._task, self._lease)
        deaths = self._lease.deaths + 1
        death = WorkerDied(f"the process that ran it died ({self._child.ended()}); deaths so far: {deaths}")
        return Died(
            failure_of(death, self._lease.task),
            SUSPECT_DELAY_SECONDS * 2 ** (deaths - 1),
            final=deaths >= MAX_DEATHS,
        )

    def _stop(self) -> None:
        """It is asked to end at first, and killed when that is wanted once more."""
        if self._is_over:  # its child may run another by now
            return
        if not self._is_asked:
            self._is_asked = True
            self._child.tell(ASKED)
        elif self._child.is_alive:
            self._is_killed = True
            self._child.die()

    def _end_for_memory(self, taken: int) -> None:
        self._taken = taken
        self._child.die()


def _kill_group(leader: int) -> None:
    """Of a child, which has a session of its own."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # it is empty
            os.killpg(leader, signal.SIGKILL)


async def _hand_over(file: str, chunks: Chunks, stdin: asyncio.StreamWriter) -> None:
    """One file, as the child reads it (`files.receive`): each chunk with its length before it."""
    try:
        async for data in chunks(file):
            stdin.write(len(data).to_bytes(4, "big") + data if data else b"")
            await stdin.drain()
        stdin.write(FILE_ENDS)
    except FileLost:
        stdin.write(LOST)
