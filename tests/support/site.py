"""An application in a folder of its own: its servers and workers, its store, and what its tasks did."""

import http.client
import json
import select
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode

from tests.support import waiting
from tests.support.database import Database
from tests.support.effects import Effects
from tests.support.lock import Trier
from tests.support.processes import Process, Starter, environment_of_users

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: Any

    @property
    def job(self) -> str:
        """The id of the one job that was added."""
        assert self.status == 202, self
        [job] = self.body["jobs"]
        return job


class Stream:
    """An answer whose head is here; the rest is on its way until it is closed."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection
        self._response = connection.getresponse()
        self.status = self._response.status

    def close(self) -> None:
        """Go away, wherever the answer is."""
        self._response.close()
        self._connection.close()


class Door:
    """A port that stays open while the servers behind it come and go: nobody else gets it, and who comes waits."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.socket.bind((LOOPBACK, 0))
        self.socket.listen(2048)
        self.port: int = self.socket.getsockname()[1]

    def request(self, method: str, path: str, headers: Mapping[str, str] | None = None, /, **query: Any) -> Answer:
        """Ask, and read the whole answer. A server that dies meanwhile makes a `ConnectionError`."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=40)
        try:
            connection.request(method, f"{path}?{urlencode(query)}" if query else path, headers=headers or {})
            response = connection.getresponse()
            body = response.read()
        except http.client.HTTPException as error:
            raise ConnectionError("the server went away") from error
        finally:
            connection.close()
        headers = {name.lower(): value for name, value in response.getheaders()}
        is_json = headers.get("content-type", "") == "application/json"
        return Answer(response.status, headers, json.loads(body) if is_json else body)

    def open(self, path: str, **query: Any) -> Stream:
        """Ask, and return when the head of the answer is here."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=40)
        connection.request("GET", f"{path}?{urlencode(query)}")
        return Stream(connection)

    def begin(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, /, **query: Any
    ) -> Callable[[], Answer]:
        """Ask, in a thread; call the result to wait for the answer."""
        asking: Future[Answer] = Future()

        def ask() -> None:
            try:
                asking.set_result(self.request(method, path, headers, **query))
            except Exception as error:
                asking.set_exception(error)

        Thread(target=ask, daemon=True).start()
        return lambda: asking.result(60)

    def add(self, task: str, key: str, **options: Any) -> Answer:
        """Have the application add a task to a request; `a+b` adds two, with the keys `key-0` and `key-1`."""
        return self.request("POST", f"/jobs/{task}", key=key, **options)

    def serves(self, process: Process) -> bool:
        """Wait until somebody answers here; False when `process` ended before."""
        with socket.create_connection((LOOPBACK, self.port), timeout=30) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            while process.is_alive():
                if select.select([connection], [], [], 0.02)[0]:
                    return bool(connection.recv(1))
        return False


class Site:
    """Servers and workers of `tests.faults.app_under_test` on one store."""

    def __init__(self, folder: Path, starter: Starter, ending: ExitStack) -> None:
        self.folder = folder
        self.store_folder = folder
        self.effects = Effects(folder / "effects.log")
        self.door = self.another_door(ending)
        self._starter = starter
        self._ending = ending
        self._outputs: list[Path] = []
        self._armed: list[tuple[str, Process]] = []
        self.processes: list[Process] = []
        self.pruned: set[str] = set()
        """The keys of jobs that ran, and are to be forgotten by the store."""

    @property
    def database(self) -> Database:
        return Database(self.store_folder / "jobs.db")

    @property
    def url(self) -> str:
        """Where its processes find the store, unless they are told otherwise."""
        return f"sqlite:///{self.database.path}"

    def another_door(self, ending: ExitStack | None = None) -> Door:
        door = Door()
        (ending or self._ending).callback(door.socket.close)
        return door

    def serve(
        self, *, door: Door | None = None, ready: bool = True, leasing: bool = False, crash: str = "", **settings: Any
    ) -> Process:
        """Start a server, and wait until it answers. `crash`: where it dies, as `point:n`. `url`: of another store.

        `leasing`: and until jobs of its requests are leased to its own worker; before, they are held.
        """
        door = door or self.door
        process = self._start("server", door.socket, crash, settings)
        assert not ready or door.serves(process), process.output()
        if leasing:
            assert door.request("GET", "/leasing").status == 200
        return process

    def work(self, *, crash: str = "", **settings: Any) -> Process:
        """Start a worker that serves no requests."""
        return self._start("worker", None, crash, settings)

    def not_hit(self) -> list[str]:
        """The crash points that a process was to die at, and did not."""
        return [crash for crash, process in self._armed if process.was_killed or process.wait(0) != -signal.SIGKILL]

    def outputs(self) -> str:
        """All that its processes said."""
        return "".join(path.read_text(errors="replace") for path in self._outputs)

    def freeze_unlocked(self, process: Process) -> None:
        """Freeze a process at a moment when it holds no lock on the store's file: then it harms nobody but itself."""
        trier = Trier(self.database.path)
        try:
            trier.is_free()  # it takes a while to start
            waiting.wait_until(lambda: self._stands_unlocked(process, trier), "it stands still without the lock", 30)
        finally:
            trier.close()

    def _stands_unlocked(self, process: Process, trier: Trier) -> bool:
        """Freeze it. When that was with the lock, let it go on until it has given the lock back."""
        process.freeze()
        if trier.is_free():
            return True
        process.thaw()
        waiting.wait_until(trier.is_free, "it gives the lock back", 30)
        return False

    def _start(
        self,
        role: str,
        listening: socket.socket | None,
        crash: str,
        settings: dict[str, Any],
        command: Sequence[str] = (),
    ) -> Process:
        environment = {
            **environment_of_users(),
            "AFTERWARD_URL": settings.pop("url", self.url),
            "APP_EFFECTS": str(self.effects.path),
            **{f"APP_{name.upper()}": str(value) for name, value in settings.items()},
        }
        if crash:
            environment["AFTERWARD_CRASH"] = crash
        output = self.folder / f"output-{len(self._outputs)}-{role}.txt"
        self._outputs.append(output)
        program, *arguments = command or ("tests.faults.serve", role)
        process = self._starter.start(program, *arguments, environment=environment, output=output, listening=listening)
        self._ending.callback(process.kill)
        self.processes.append(process)
        if crash:
            self._armed.append((crash, process))
        return process
