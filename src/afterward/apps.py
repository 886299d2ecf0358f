"""The applications that tasks are installed on: what overrides their dependencies, and what their lifespans yield."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol
from weakref import WeakKeyDictionary, ref

from starlette.applications import Starlette
from starlette.datastructures import State

from afterward.errors import ConfigurationError

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


class Apps:
    """The applications of one `Afterward`, in the order of their `install`.

    Those whose lifespan lasts have a say; where they differ, the newest counts. While none lasts, as in tests, only the
    one that was installed on, or has served, last has a say: any other may be of a test that is over.
    """

    def __init__(self) -> None:
        self._apps: list[ref[Starlette]] = []
        self._latest: Callable[[], Starlette | None] = lambda: None
        self._states: dict[Starlette, Mapping[str, Any]] = {}
        self._places: WeakKeyDictionary[Starlette, str] = WeakKeyDictionary()

    def __iter__(self) -> Iterator[Starlette]:
        return (app for known in self._apps if (app := known()) is not None)

    def add(self, app: Starlette) -> None:
        """Tasks have been installed on `app`. It is not kept alive by that."""
        self._latest = ref(app)
        self._apps = [*(ref(known) for known in self), self._latest]

    def hear_of_request(self, app: Starlette) -> None:
        """`app` serves one, in a test."""
        self._latest = ref(app)

    def _heard(self) -> list[Starlette]:
        """Those that have a say now, the newest first."""
        apps = [*self][::-1]
        living = [app for app in apps if app in self._states]
        latest = self._latest()
        return living or ([latest] if latest is not None else apps[:1])

    def overrides(self) -> Mapping[Callable[..., Any], Callable[..., Any]]:
        """What `app.dependency_overrides` says now."""
        said: list[Mapping[Callable[..., Any], Callable[..., Any]]] = []
        for app in self._heard():  # FastAPI asks the provider, which is the app itself unless somebody has changed that
            provider = getattr(app.router, "dependency_overrides_provider", None)
            said.append(getattr(provider, "dependency_overrides", None) or {})
        return _merged(said)

    @contextmanager
    def living(self, app: Starlette, state: Mapping[str, Any] | None) -> Generator[None]:
        """While the block lasts, the lifespan of `app` has begun, and `state` is what it has yielded."""
        before = self._states.get(app)
        self._states[app] = state or {}
        try:
            yield
        finally:
            del self._states[app]
            if before is not None:
                self._states[app] = before

    def lifespan_state(self) -> State:
        """What the lifespans that now last have yielded, copied for one job. Raises `ConfigurationError`."""
        if not self._states:
            raise ConfigurationError(
                "lifespan_state: no lifespan of an app that these tasks are installed on has begun in this process; "
                "start the worker with the app, as in `afterward worker main:app`"
            )
        return State(dict(_merged([self._states[app] for app in self._heard()])))

    def places(self) -> list[str]:
        """Where another process can import the applications from, as `module:name`; of those that have such a place."""
        for app in self:
            if app not in self._places and (place := _place_of(app)) is not None:
                self._places[app] = place
        return [self._places[app] for app in self if app in self._places]


class Owner(Protocol):
    """What stands in `app.state.afterward`."""

    @property
    def apps(self) -> Apps: ...


_WITH_WORKERS: ContextVar[bool] = ContextVar("afterward.with_workers", default=True)
_OUTER: ContextVar[frozenset[tuple[object, Starlette]]] = ContextVar("afterward.outer", default=frozenset())


def starts_workers() -> bool:
    """Is a lifespan that begins now to start its worker? Not in a process that is a worker, or a child of one."""
    return _WITH_WORKERS.get()


def is_inner(owner: object, app: Starlette) -> bool:
    """Does a lifespan that begins now lie within another that sees to the same tasks of the same application?"""
    return (owner, app) in _OUTER.get()


@asynccontextmanager
async def entered(
    lifespan: Lifespan, app: Starlette, *, owner: object = None, workers: bool = True
) -> AsyncGenerator[Mapping[str, Any] | None]:
    """A lifespan within which `owner` is seen to already; without `workers`, nothing in it starts one."""
    async with AsyncExitStack() as stack:
        outer = _OUTER.set(_OUTER.get() | {(owner, app)})
        with_workers = _WITH_WORKERS.set(workers and _WITH_WORKERS.get())
        try:
            state = await stack.enter_async_context(lifespan(app))
        finally:  # before the `yield`, for what comes after may run in another context
            _WITH_WORKERS.reset(with_workers)
            _OUTER.reset(outer)
        yield state


@asynccontextmanager
async def lifespan_of(app: Starlette) -> AsyncGenerator[None]:
    """The lifespan of `app`, in a process that serves no requests: all of it but the workers that `install` adds."""
    owners: list[Owner] = getattr(app.state, "afterward", [])
    async with entered(app.router.lifespan_context, app, workers=False) as state:
        with ExitStack() as living:
            for owner in owners:
                living.enter_context(owner.apps.living(app, state))
            yield


def _merged(mappings: list[Mapping[Any, Any]]) -> Mapping[Any, Any]:
    if len(mappings) == 1:
        return mappings[0]
    return {key: value for mapping in reversed(mappings) for key, value in mapping.items()}


def _place_of(app: Starlette) -> str | None:
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is app and module.__name__ not in {"__main__", "__mp_main__"}:
                return f"{module.__name__}:{name}"
    return None
