"""`afterward pause` and `resume`: having nobody begin the jobs of a queue, for a while."""

from __future__ import annotations

import getpass
import socket

from afterward.cli.reading import opened
from afterward.cli.telling import say
from afterward.errors import ConfigurationError
from afterward.sizes import many
from afterward.stores.base import Store
from afterward.text import is_storable


async def pause(url: str | None, queue: str, by: str | None) -> None:
    """Pause a queue, and say how many jobs wait there. One that is paused stays so, as it was."""
    _check(queue, by or "")
    async with opened(url) as store:
        is_new = await store.pause(queue, by or _me())
        since = {pause.queue: pause for pause in await store.paused()}.get(queue)
        if is_new or since is None:
            waiting = await _waiting(store, queue)
            wait = "waits" if waiting == 1 else "wait"
            print(f"paused queue {queue}: {many(waiting, 'job')} {wait} there; what runs goes on")
        else:
            print(f"queue {queue} is paused already, since {since.since:%Y-%m-%d %H:%M:%S} UTC, by {since.by}")


async def resume(url: str | None, queue: str) -> None:
    """Let the jobs of a queue be begun again, and say how many have waited there."""
    _check(queue)
    async with opened(url) as store:
        waiting = await _waiting(store, queue)  # before: they are begun at once
        if await store.resume(queue):
            print(f"resumed queue {queue}: {many(waiting, 'job')} waited there")
            return
        print(f"queue {queue} is not paused")
        others = ", ".join(pause.queue for pause in await store.paused())
        if others:
            say(f"paused are: {others}")


def _check(*texts: str) -> None:
    for text in texts:
        if not is_storable(text):
            raise ConfigurationError(f"{text!r} is no text that can be stored")


def _me() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # as in a container, whose user has no name
        user = "somebody"
    return f"{user} on {socket.gethostname()}"


async def _waiting(store: Store, queue: str) -> int:
    counts = next((counts for counts in (await store.stats()).queues if counts.queue == queue), None)
    return 0 if counts is None else counts.depth + counts.later + counts.held
