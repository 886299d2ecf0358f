"""A site to be played with: while the block lasts, its clock and its dice are those of the code."""

import logging
import random
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, cast

from afterward import identity, liveness
from afterward.engine import executor, finishing, reporter, voice, worker
from tests.simulation.loops import World
from tests.simulation.site import Site


class _Clock:
    """In place of the module `time`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic(self) -> float:
        return self._world.now

    def time_ns(self) -> int:
        return int(self._world.now * 1e9)


class _Heard(logging.Handler):
    """The events of all processes."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        event: str = cast("Any", record).afterward["event"]
        self._world.seen[event] += 1
        if record.levelno >= logging.ERROR:
            self._world.mistakes.append({"message": record.getMessage(), "exception": record.exc_info})


@contextmanager
def playing(seed: int) -> Generator[Site]:
    """A site that nothing has happened on. While the block lasts, the code's clock is its clock."""
    site = Site(seed)
    changed: list[tuple[Any, str, Any]] = []

    def change(thing: object, name: str, value: object) -> None:
        changed.append((thing, name, getattr(thing, name)))
        setattr(thing, name, value)

    clock = _Clock(site.world)
    modules: list[ModuleType] = [liveness, worker, finishing, reporter, voice, identity]
    for module in modules:
        change(module, "time", clock)
    change(identity, "_last", 0)
    change(executor, "jitter", site.world.random.random)
    state = random.getstate()
    random.seed(seed)
    logger, heard = logging.getLogger("afterward"), _Heard(site.world)
    change(logger, "propagate", False)
    level = logger.level
    logger.setLevel(logging.WARNING)
    logger.addHandler(heard)
    try:
        yield site
    finally:
        site.end()
        logger.removeHandler(heard)
        logger.setLevel(level)
        random.setstate(state)
        for thing, name, before in reversed(changed):
            setattr(thing, name, before)
