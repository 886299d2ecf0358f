"""The lifespans of applications, in a process that serves no requests."""

from __future__ import annotations

import traceback
from contextlib import AsyncExitStack
from types import TracebackType

from starlette.applications import Starlette

from afterward.apps import lifespan_of
from afterward.errors import LifespanFailed


async def begin(app: Starlette, lifespans: AsyncExitStack) -> None:
    """Begin the lifespan of an application; its end follows with the others'. Raises `LifespanFailed`."""
    lifespan = lifespan_of(app)
    name = getattr(app, "title", type(app).__name__)
    try:
        await lifespan.__aenter__()
    except Exception as error:  # whatever the user's lifespan raises
        raise _failed(name, "at start-up", error) from error

    async def end(kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            await lifespan.__aexit__(kind, error, at)
        except Exception as broken:  # likewise
            if broken is error:
                raise
            raise _failed(name, "at shutdown", broken) from broken

    lifespans.push_async_exit(end)


def _failed(name: str, when: str, error: Exception) -> LifespanFailed:
    traceback.print_exception(error)
    return LifespanFailed(f"the lifespan of the app {name!r} failed {when}: {type(error).__name__}: {error}")
