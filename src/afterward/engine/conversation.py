"""What an attempt in a child process says to its worker while it runs, and what it is answered."""

from __future__ import annotations

import json
from collections.abc import Callable

from afterward.engine.orders import LEAVES, SETTLED, SETTLES, UNSETTLED
from afterward.engine.voice import AttemptVoice
from afterward.errors import StoreUnavailable
from afterward.job import EventKind


class Conversation:
    """With one attempt. `tell` answers it; `leave` is called before it ends itself."""

    def __init__(self, tell: Callable[[bytes], None], voice: AttemptVoice, leave: Callable[[], None]) -> None:
        self._tell = tell
        self._voice = voice
        self._leave = leave

    async def hear(self, line: bytes) -> None:
        """One line of it."""
        if line == LEAVES:
            self._leave()
        elif line == SETTLES:
            self._tell(await self._settle())
        else:
            kind, data = json.loads(line)
            await self._voice.give(EventKind(kind), data)

    async def _settle(self) -> bytes:
        try:
            await self._voice.settle()
        except StoreUnavailable as error:
            return UNSETTLED + str(error).encode()
        return SETTLED
