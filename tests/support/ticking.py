"""How long the event loop of this process was held up."""

import asyncio
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path


class Ticker:
    """Ticks on the loop where it was started, as something that is always due. What the machine keeps from this
    process does not count: the time in which a thread of it was ready to run, and was given no processor.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        """Seconds, between a tick and the next."""

    @contextmanager
    def ticking(self) -> Generator[None]:
        task = asyncio.get_running_loop().create_task(self._tick())
        try:
            yield
        finally:
            task.cancel()

    async def _tick(self) -> None:
        while True:
            began, kept = time.monotonic(), _kept_waiting()
            await asyncio.sleep(0.002)
            self.longest = max(self.longest, time.monotonic() - began - (_kept_waiting() - kept))


def _kept_waiting() -> float:
    """Seconds in which threads of this process, all in all, waited for a processor, as Linux counts them."""
    waited = 0
    for thread in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            waited += int((thread / "schedstat").read_text().split()[1])
    return waited / 1e9
