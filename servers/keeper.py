"""Cleaning up after a process, however it ends."""

import subprocess
from pathlib import Path

# It reads what is written to it until nobody can write any more: that is when the process is gone that made it. A
# shell, for it starts at once, and is there for every account. The last line tells whom to end, if anybody. CONT, for
# who was stopped hears no other signal. Again and again, for somebody may still be writing there.
_WAIT_AND_CLEAN = """
pid=
while read -r line; do pid=$line; done
if [ -n "$pid" ]; then
    kill -s "$1" "$pid"
    kill -s CONT "$pid"
    left=80
    while [ "$left" -gt 0 ] && kill -0 "$pid"; do sleep 0.1; left=$((left - 1)); done
    kill -s KILL "$pid"
fi
left=80
until rm -rf "$2" || [ "$left" -eq 0 ]; do sleep 0.1; left=$((left - 1)); done
"""


class Keeper:
    """Removes a folder when it is closed, or when this process is gone; then it first ends whom it guards.

    `ending`: the signal for that, by its name. It is a process in a session of its own, so neither Ctrl-C nor the
    SIGKILL that ends this process reaches it.
    """

    def __init__(self, folder: Path, ending: str = "KILL") -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _WAIT_AND_CLEAN, "keeper", ending, folder],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )

    def guard(self, pid: int) -> None:
        """End that process too."""
        self._say(str(pid))

    def release(self) -> None:
        """Its process has ended."""
        self._say("")

    def close(self) -> None:
        """Remove the folder, now. Lawful twice."""
        self._shell.communicate()

    def _say(self, line: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{line}\n".encode())
