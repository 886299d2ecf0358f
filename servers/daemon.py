"""A program that runs in the background."""

import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from servers import account
from servers.errors import ServerError
from servers.keeper import Keeper

_STARTING_SECONDS = 60.0
_STOPPING_SECONDS = 60.0


class Daemon:
    """A program with a folder of its own, in which it works, as an account that is not root's.

    It can end and be started again. When this process is gone it gets the signal `ending`, and the folder is removed.
    It is in a session of its own: Ctrl-C does not reach it.
    """

    def __init__(self, name: str, place: Path, ending: str) -> None:
        self._name = name
        self.folder = Path(tempfile.mkdtemp(prefix=f"afterward-{name.lower()}-", dir=place))
        self._keeper = Keeper(self.folder, ending)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            account.give(self.folder)
            account.check_reach(self.folder, "let the server make its folder in one that is open to all")
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int | None:
        """None when it does not run."""
        return self._process.pid if self._process else None

    def start(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        """Start it; what it says goes into its log."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **account.options(),
            )
        self._keeper.guard(self._process.pid)

    def becomes(self, condition: Callable[[], bool]) -> bool:
        """Wait until the condition holds; False when the program has ended instead."""
        assert self._process is not None
        deadline = time.monotonic() + _STARTING_SECONDS
        while self._process.poll() is None:
            if condition():
                return True
            if time.monotonic() > deadline:
                raise ServerError(f"{self._name} is not ready after {_STARTING_SECONDS:g} s:\n{self.said()}")
            time.sleep(0.005)
        self.wait()
        return False

    def end(self, number: int) -> None:
        """Send it this signal, and wait until it has ended. Lawful when it does not run."""
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.send_signal(signal.SIGCONT)
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            raise ServerError(f"{self._name} has not ended after {_STOPPING_SECONDS:g} s:\n{self.said()}") from None

    def wait(self) -> None:
        """Wait until it has ended."""
        assert self._process is not None
        self._process.wait(_STOPPING_SECONDS)
        self._keeper.release()
        self._process = None

    def said(self) -> str:
        """The end of its log."""
        return self.log()[-4000:]

    def log(self) -> str:
        """All that it has said, in all its lives."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        """Remove the folder, after its end by SIGKILL if it runs. Lawful twice."""
        self.end(signal.SIGKILL)
        self._keeper.close()
