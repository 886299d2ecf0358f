"""Processes that tests start, freeze and kill. Each is ended by its pid, however the test ends."""

import array
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
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
    """A program in a process of its own, with its output in a file."""

    def __init__(self, process: "subprocess.Popen[bytes]", output: Path) -> None:
        self._process = process
        self._output = output
        self.pid = process.pid
        self.was_killed = False

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> Death:
        """`kill -9`; lawful on a process that has ended."""
        after = time.monotonic()
        self.was_killed = self.was_killed or self.is_alive()
        self._process.kill()
        self._process.wait(30)
        return Death(self.pid, after, time.monotonic())

    def terminate(self, number: int = signal.SIGTERM) -> float:
        """Ask it to end, and do not wait; answers when it was asked."""
        at = time.monotonic()
        self._process.send_signal(number)
        return at

    def wait(self, seconds: float = 30) -> int:
        """Its return code, once it has ended: negative for a signal."""
        return self._process.wait(seconds)

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self.terminate()
        self.wait()

    def freeze(self) -> float:
        """Stop all its threads where they are; answers when they all stood still."""
        self._process.send_signal(signal.SIGSTOP)
        wait_until(lambda: self._state() == "T", f"process {self.pid} stands still")
        return time.monotonic()

    def thaw(self) -> float:
        """Let it go on."""
        at = time.monotonic()
        self._process.send_signal(signal.SIGCONT)
        return at

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

    def _state(self) -> str:
        return self._stat()[0]

    def _stat(self) -> list[str]:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()


class Starter:
    """Starts programs of this repository at once, out of fresh processes that wait with their imports done."""

    def __init__(self, ahead: int = 2) -> None:
        self._ahead = ahead
        self._waiting: deque[tuple[subprocess.Popen[bytes], socket.socket]] = deque()

    def start(
        self,
        module: str,
        *arguments: str,
        environment: Mapping[str, str],
        output: Path,
        listening: socket.socket | None = None,
    ) -> Process:
        """Run `python -m module arguments…`; a listening socket's number goes to it as APP_LISTENS_ON."""
        while len(self._waiting) <= self._ahead:
            self._prepare()
        process, control = self._waiting.popleft()
        order = json.dumps({"module": module, "arguments": arguments, "environment": dict(environment)})
        with control, output.open("ab") as file:
            descriptors = array.array("i", [file.fileno(), *([listening.fileno()] if listening else [])])
            control.sendmsg([order.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        return Process(process, output)

    def close(self) -> None:
        for process, control in self._waiting:
            control.close()
            process.kill()
            process.wait(30)
        self._waiting.clear()

    def _prepare(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.standby", str(theirs.fileno())],
                cwd=REPOSITORY,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._waiting.append((process, ours))


def run_aside(program: str, *arguments: str | Path) -> "subprocess.Popen[str]":
    """A small program of a few lines, spoken to by its standard input and output."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=REPOSITORY,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _environment() -> dict[str, str]:
    ours: Sequence[str] = ("AFTERWARD_", "APP_")
    return {name: value for name, value in os.environ.items() if not name.startswith(tuple(ours))}
