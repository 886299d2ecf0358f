"""A terminal: one bash in a folder, in which what a page shows is typed."""

import contextlib
import os
import re
import secrets
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.support.pages import environment
from tests.support.waiting import wait_until


class Terminal:
    """Runs commands one after the other; what they, and what they started, say goes to one place."""

    def __init__(self, folder: Path) -> None:
        self._output = folder.with_name(folder.name + ".terminal")
        with self._output.open("wb") as output:
            self._bash = subprocess.Popen(
                ["bash", "--noprofile", "--norc"],
                cwd=folder,
                env={**environment(folder), "COLUMNS": "200"},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # so that whatever it has started can be ended with it
            )

    def type(self, commands: str) -> str:
        """Run these commands, wait for their end (not of what they leave running), and answer what was said."""
        assert self._bash.stdin is not None
        before, mark = len(self.said()), secrets.token_hex(8)
        self._bash.stdin.write(f"{commands}\necho {mark}\n")
        self._bash.stdin.flush()
        wait_until(lambda: mark in self.said() or self._bash.poll() is not None, f"{commands!r} has ended", seconds=30)
        assert mark in self.said(), f"the terminal is gone: {self.said()}"
        return self.said()[before:].replace(f"{mark}\n", "")

    def said(self) -> str:
        """All that was said until now."""
        return self._output.read_text(errors="replace")

    def close(self) -> None:
        """End bash and whatever it has left running."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        if self._bash.stdin is not None:
            self._bash.stdin.close()
        self._bash.wait(30)


@contextmanager
def terminal(folder: Path) -> Generator[Terminal]:
    """A terminal in `folder`, while the block lasts."""
    opened = Terminal(folder)
    try:
        yield opened
    finally:
        opened.close()


def shows(output: str, expected: str) -> bool:
    """Is each line of `expected` among those of `output`? `…` stands for anything, an id of a job for any.

    How many spaces stand in a row makes no difference.
    """
    return all(
        any(_pattern(line).fullmatch(" ".join(said.split())) for said in output.splitlines())
        for line in expected.strip().splitlines()
    )


ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def _pattern(line: str) -> re.Pattern[str]:
    parts = (re.escape(part) for part in ID.sub("\0", " ".join(line.split())).split("…"))
    return re.compile(".*".join(parts).replace("\0", ID.pattern))
