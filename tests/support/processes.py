"""Processes that tests start, freeze and kill. Each is ended by its pid, however the test ends."""

import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Death:
    """A kill, in `time.monotonic()`: the process lived at `after`, and was dead at `before`."""

    pid: int
    after: float
    before: float


class Process:
    """A program in a process of its own, with its output in a file.

    `told`: where somebody tells its id at once, and its return code when it has ended.
    """

    def __init__(self, told: io.FileIO, output: Path) -> None:
        self._told = told
        self._output = output
        self._code: int | None = None
        self.pid = int(told.readline())
        self.was_killed = False

    def is_alive(self) -> bool:
        return not self._has_ended(0)

    def kill(self) -> Death:
        """`kill -9`; lawful on a process that has ended."""
        after = time.monotonic()
        self.was_killed = self.was_killed or self.is_alive()
        self._send(signal.SIGKILL)
        self.wait()
        return Death(self.pid, after, time.monotonic())

    def terminate(self, number: int = signal.SIGTERM) -> float:
        """Ask it to end, and do not wait; answers when it was asked."""
        at = time.monotonic()
        self._send(number)
        return at

    def wait(self, seconds: float = 30) -> int:
        """Its return code, once it has ended: negative for a signal."""
        if not self._has_ended(seconds):
            raise TimeoutError(f"process {self.pid} has not ended within {seconds} s")
        assert self._code is not None
        return self._code

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self.terminate()
        self.wait()

    def freeze(self) -> float:
        """Stop all its threads where they are; answers when they all stood still."""
        self._send(signal.SIGSTOP)
        wait_until(lambda: self._state() == "T", f"process {self.pid} stands still")
        return time.monotonic()

    def thaw(self) -> float:
        """Let it go on."""
        at = time.monotonic()
        self._send(signal.SIGCONT)
        return at

    @property
    def stands_still(self) -> bool:
        """Do all its threads stand where they are, as after SIGSTOP?"""
        return self.is_alive() and self._state() == "T"

    def output(self) -> str:
        """All that it has said until now."""
        return self._output.read_text(errors="replace")

    def events(self, name: str) -> list[str]:
        """The lines of its log with this event."""
        return [line for line in self.output().splitlines() if line.split(" ", 1)[0] == name]

    def cpu_seconds(self) -> float:
        """The processor time it has used."""
        fields = self._stat()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def children(self) -> list[int]:
        """The processes that its main thread has started and that live."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def _has_ended(self, seconds: float) -> bool:
        if self._code is None and select.select([self._told], [], [], seconds)[0]:
            self._code = int(self._told.readline())
            self._told.close()
        return self._code is not None

    def _send(self, number: int) -> None:
        if self.is_alive():
            os.kill(self.pid, number)

    def _state(self) -> str:
        return self._stat()[0]

    def _stat(self) -> list[str]:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()


class Starter:
    """Starts programs of this repository at once, by a process that has done their imports."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._standby = subprocess.Popen(
                [sys.executable, "-m", "tests.support.standby", str(theirs.fileno())],
                cwd=REPOSITORY,
                env=environment_of_users(),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def start(
        self,
        program: str,
        *arguments: str,
        environment: Mapping[str, str],
        output: Path,
        errors: Path | None = None,
        folder: Path = REPOSITORY,
        listening: socket.socket | None = None,
    ) -> Process:
        """Run a module or, by its path, a script, in a session of its own.

        `errors`: the file of its standard error, where that is not its output's. A listening socket's number goes to
        it as APP_LISTENS_ON.
        """
        order = {
            "program": program, "arguments": arguments, "folder": str(folder), "environment": dict(environment)
        }  # fmt: skip
        told, tells = os.pipe()
        with (
            os.fdopen(tells, "wb") as telling,
            tempfile.TemporaryFile("w+") as written,  # an order may be longer than a message can be
            output.open("ab") as out,
            (errors or output).open("ab") as err,
        ):
            json.dump(order, written)
            written.flush()
            descriptors = [each.fileno() for each in (telling, written, out, err, *([listening] if listening else []))]
            socket.send_fds(self._orders, [b"start"], descriptors)
        return Process(io.FileIO(told), output)

    def close(self) -> None:
        self._orders.close()
        self._standby.wait(30)


def run_aside(program: str, *arguments: str | Path) -> "subprocess.Popen[str]":
    """A small program of a few lines, spoken to by its standard input and output."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=REPOSITORY,
        env=environment_of_users(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def environment_of_users() -> dict[str, str]:
    """That of these tests, without what is for us."""
    ours: Sequence[str] = ("AFTERWARD_", "APP_")
    return {name: value for name, value in os.environ.items() if not name.startswith(tuple(ours))}
