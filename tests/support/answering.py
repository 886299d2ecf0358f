"""The world of the tests of `examples/answers`: its servers and workers, and its visitors."""

import asyncio
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx

from examples.answers.model import parrot
from tests.support.example import LOOPBACK, Server
from tests.support.listening import Connection
from tests.support.processes import REPOSITORY, Process, Starter
from tests.support.serving import Address
from tests.support.telling import Browser


class Answering:
    """The example in a folder of its own. `worker`: do its servers write answers themselves?"""

    def __init__(self, folder: Path, starter: Starter, processes: ExitStack) -> None:
        self._folder = folder
        self._starter = starter
        self._processes = processes
        self._outputs = 0
        self.address = Address(LOOPBACK, 0)
        ours = ("AFTERWARD_", "ANSWERS_", "APP_")
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])),
            "AFTERWARD_URL": f"sqlite:///{folder}/jobs.db",
        }

    def serve(self, **settings: str) -> Server:
        """Start the example under uvicorn; a second time where the first was."""
        place = ["--host", LOOPBACK, "--port", str(self.address.port)]
        server = Server(
            ["-m", "uvicorn", "examples.answers.app:app", *place],
            self._environment | settings,
            self._output(),
            r"running on http://127\.0\.0\.1:(\d+)",
        )
        self._processes.callback(server.kill)
        assert server.port is not None
        self.address = Address(LOOPBACK, server.port)
        return server

    def work(self, **settings: str) -> Process:
        """Start a process that writes answers."""
        worker = self._starter.start(
            "afterward",
            *("worker", "examples.answers.app:app"),
            environment=self._environment | settings,
            output=self._output(),
            folder=self._folder,
        )
        self._processes.callback(worker.kill)
        return worker

    def visitor(self) -> httpx.Client:
        """Somebody who opens the page."""
        client = httpx.Client(base_url=self.address.url, trust_env=False, timeout=30)
        self._processes.callback(client.close)
        assert client.get("/").status_code == 200
        return client

    def listen(self, visitor: httpx.Client, path: str, browser: Browser | None = None) -> Connection:
        """The answer at this path, as the visitor's browser reads it."""
        return Connection(self.address, path, browser, cookie=f"visitor={visitor.cookies['visitor']}")

    def _output(self) -> Path:
        self._outputs += 1
        return self._folder / f"output-{self._outputs}.txt"


def ask(visitor: httpx.Client, question: str = "why?") -> str:
    """The path at which the answer is found."""
    response = visitor.post("/answers", json={"question": question})
    assert response.status_code == 202, response.text
    return f"{response.headers['Location']}/events"


def answers(lines: Sequence[tuple[str, object]]) -> str:
    """What has been said since the last attempt began."""
    pieces: list[str] = []
    for event, data in lines:
        if event == "attempt":
            pieces.clear()
        elif event == "item":
            pieces.append(str(data))
    return "".join(pieces)


def pieces_of(question: str) -> list[str]:
    """What the example answers, in pieces."""

    async def pieces() -> list[str]:
        return [piece async for piece in parrot(0)(question)]

    return asyncio.run(pieces())
