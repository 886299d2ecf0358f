"""A desk of reports: tasks that take as long as the test wants, and what a client sees of them over HTTP."""

import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread
from typing import Annotated, Any

from fastapi import FastAPI, Header
from fastapi.testclient import TestClient
from pydantic import BaseModel, Field

import afterward
from afterward import Afterward, GiveUp, Task


class Report(BaseModel):
    """What the task comes to; clients see it under other names."""

    year: int
    pages: int = Field(serialization_alias="numberOfPages")


class Broken(Exception):
    """What goes wrong."""


class Desk:
    """Its tasks. `open` and `close` the door: what is made waits behind it."""

    def __init__(self, tasks: Afterward) -> None:
        self._door = threading.Event()
        self._door.set()
        self.make: Task[[int], Report] = tasks.task(max_attempts=2, backoff=0.0)(self._make)
        self.started = threading.Event()
        self.break_with: list[Exception] = []

    def _make(self, year: int) -> Report:
        self.started.set()
        afterward.progress(1, 2, "half of it")
        while not self._door.wait(0.01):
            afterward.check_cancelled()
        if self.break_with:
            raise self.break_with.pop()
        return Report(year=year, pages=12)

    @contextmanager
    def closed(self) -> Generator[None]:
        """While the block lasts, nothing ends."""
        self._door.clear()
        try:
            yield
        finally:
            self._door.set()

    def fail(self, message: str = "the printer is out of paper") -> None:
        """The next attempt fails for good."""
        self.break_with.append(GiveUp(message))


def user(x_user: Annotated[str, Header(min_length=1)] = "ada") -> str:
    """Who asks: whoever they say they are."""
    return x_user


def is_admin(x_admin: Annotated[bool, Header()] = False) -> bool:
    return x_admin


def as_user(name: str) -> dict[str, str]:
    return {"X-User": name}


def begun(ask: Callable[[], Any]) -> Callable[[], Any]:
    """Ask, in a thread; call the result to wait for the answer."""
    asking: Future[Any] = Future()

    def work() -> None:
        try:
            asking.set_result(ask())
        except BaseException as error:
            asking.set_exception(error)

    Thread(target=work, daemon=True).start()
    return lambda: asking.result(30)


def ended(client: TestClient, path: str) -> dict[str, Any]:
    """The document of the job at this path, once it is done."""
    document: dict[str, Any] = client.get(path, params={"wait": 20}).json()
    assert document["done"], document
    return document


def documented(app: FastAPI, path: str, method: str, status: str = "200") -> dict[str, Any]:
    """What OpenAPI says of the body of an answer."""
    schema: dict[str, Any] = app.openapi()["paths"][path][method]["responses"][status]["content"]["application/json"]
    return schema["schema"]
