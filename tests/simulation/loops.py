"""Event loops that share one clock and one thread: run one callback at a time, in an order that a seed draws."""

import asyncio
import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from contextvars import Context
from itertools import count
from typing import Any, Protocol

STEP_SECONDS = 0.00002
"""How long one callback takes."""


class Owner(Protocol):
    """The process that a loop is one of."""

    @property
    def stands_still(self) -> bool:
        """Is it dead, or stopped?"""
        ...


class Lane(asyncio.AbstractEventLoop):
    """One event loop of one process: what it is asked for first it does first, when it is its turn."""

    def __init__(self, world: "World", owner: Owner) -> None:
        self.owner = owner
        self.ready: deque[asyncio.Handle] = deque()
        self.tasks: set[asyncio.Task[Any]] = set()
        self._world = world
        world.lanes.append(self)

    def time(self) -> float:
        return self._world.now

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self.ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._world.now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._world.call_at(when, lambda: self.ready.append(timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when its time comes."""

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: Any = None, context: Context | None = None) -> "asyncio.Task[Any]":
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return False

    def is_running(self) -> bool:
        return asyncio._get_running_loop() is self

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._world.mistakes.append(context)


class World:
    """What all processes share: the time, the dice, and who comes next. `seen`: what has happened, and how often."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1_000.0
        self.lanes: list[Lane] = []
        self.seen: Counter[str] = Counter()
        self.mistakes: list[dict[str, Any]] = []
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._number = count()

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def call_at(self, when: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._timers, (when, next(self._number), action))

    def call_later(self, seconds: float, action: Callable[[], object]) -> None:
        self.call_at(self.now + seconds, action)

    def run_until(self, is_over: Callable[[], bool], seconds: float) -> bool:
        """Go on until that is so, for so many seconds of the world's at most; is it?"""
        deadline = self.now + seconds
        while not is_over():
            if self.now > deadline or not self._step():
                return is_over()
        return True

    def run_for(self, seconds: float) -> None:
        self.run_until(lambda: False, seconds)

    def _step(self) -> bool:
        """One callback of one loop, or on to the next moment at which there is one; False when nothing will happen."""
        awake = [lane for lane in self.lanes if lane.ready and not lane.owner.stands_still]
        if awake:
            lane = awake[0] if len(awake) == 1 else self.random.choice(awake)
            handle = lane.ready.popleft()
            if not handle.cancelled():
                self._run(lane, handle)
            self.now += STEP_SECONDS
        elif not self._timers:
            return False
        else:
            self.now = max(self.now, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self.now:
            heapq.heappop(self._timers)[2]()
        return True

    @staticmethod
    def _run(lane: Lane, handle: asyncio.Handle) -> None:
        asyncio._set_running_loop(lane)
        try:
            handle._run()
        finally:
            asyncio._set_running_loop(None)
