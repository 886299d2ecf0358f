"""The world of the tests of `examples/notifications`: one folder, and the processes that are started in it."""

import asyncio
import email
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import httpx

from tests.support.processes import REPOSITORY

LOOPBACK = "127.0.0.1"
T = TypeVar("T")


class Server:
    """A process of its own, whose output is in a file, and that has said by a line of output where it listens."""

    def __init__(self, arguments: list[str], environment: dict[str, str], output: Path, listening: str) -> None:
        self._output = output
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, *arguments], env=environment, cwd=output.parent, stdout=file, stderr=subprocess.STDOUT
            )
        try:
            self.port = wait_until(lambda: self._port(listening), f"{arguments} listens")
        except BaseException:
            self.kill()
            raise

    def _port(self, listening: str) -> int | None:
        assert self._process.poll() is None, f"ended at its start:\n{self.output()}"
        found = re.search(listening, self.output())
        return int(found[1]) if found else None

    def output(self) -> str:
        """What the process has said until now."""
        return self._output.read_text()

    def stop(self) -> None:
        """SIGTERM, and wait for the end: what the process was doing has been done, or was given back."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=30)

    def kill(self) -> None:
        """`kill -9`; lawful on a process that has ended."""
        self._process.kill()
        self._process.wait(timeout=30)


class World:
    """The example and its mail server, in a folder of their own. The mail server's port is known while it is down."""

    def __init__(self, folder: Path, processes: ExitStack) -> None:
        self.folder = folder
        self._processes = processes
        self._maildir = folder / "maildir"
        self._starts = 0
        # Bound and not listening: connections are refused, and nobody else gets the port.
        self._smtp_port = processes.enter_context(socket.socket())
        self._smtp_port.bind((LOOPBACK, 0))
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AFTERWARD_", "SMTP_", "UPLOADS_"))
        } | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])),
            "AFTERWARD_URL": f"sqlite:///{folder}/jobs.db",
            "NOTIFICATIONS_LOG": str(folder / "log.txt"),
            "SMTP_HOST": LOOPBACK,
            "SMTP_PORT": str(self._smtp_port.getsockname()[1]),
            "SMTP_SENDER": "news@example.org",
        }

    def start_app(self) -> Server:
        """Start the example under uvicorn, on a free port."""
        app = self._start(
            ["-m", "uvicorn", "examples.notifications.app:app", "--host", LOOPBACK, "--port", "0"],
            listening=r"running on http://127\.0\.0\.1:(\d+)",
        )
        self._url = f"http://{LOOPBACK}:{app.port}"
        return app

    def start_mailbox(self, *options: str) -> Server:
        """Start the mail server, at the port where the app expects it."""
        self._smtp_port.close()
        place = ["--port", self.environment["SMTP_PORT"], "--maildir", str(self._maildir)]
        return self._start(
            ["-m", "examples.notifications.mailbox", *place, *options], listening=r"listening on 127\.0\.0\.1:(\d+)"
        )

    def _start(self, arguments: list[str], listening: str) -> Server:
        self._starts += 1
        server = Server(arguments, self.environment, self.folder / f"output-{self._starts}.txt", listening)
        self._processes.callback(server.kill)
        return server

    def post(self, address: str, **query: str) -> httpx.Response:
        """Ask for a notification."""
        with self._client() as client:
            return client.post(f"/send-notification/{quote(address, safe='')}", params=query)

    def upload(self, name: str, data: bytes, type_: str = "text/plain") -> httpx.Response:
        """Send a file by a form."""
        with self._client() as client:
            return client.post("/uploads", files={"file": (name, data, type_)})

    def look(self, job: str) -> httpx.Response:
        """Ask how far an uploaded file is."""
        with self._client() as client:
            return client.get(f"/uploads/{job}")

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self._url, trust_env=False, timeout=30)

    async def post_at_once(self, addresses: set[str]) -> list[httpx.Response]:
        """Ask for many notifications at the same time."""
        async with httpx.AsyncClient(base_url=self._url, trust_env=False, timeout=30) as client:
            return await asyncio.gather(*(client.post(f"/send-notification/{address}") for address in addresses))

    def mails(self) -> list[EmailMessage]:
        """What the mail server has taken until now."""
        return [
            email.message_from_bytes(file.read_bytes(), policy=policy.default)
            for file in sorted(self._maildir.glob("new/*"))
        ]

    def wait_for_mails(self, count: int) -> list[EmailMessage]:
        """Wait until the mail server has taken this many."""
        wait_until(lambda: len(self.mails()) >= count, f"{count} mails arrive")
        return self.mails()

    def log_lines(self) -> list[dict[str, str]]:
        """The complete lines of the app's log."""
        log = self.folder / "log.txt"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def wait_until(condition: Callable[[], T], what: str, seconds: float = 30) -> T:
    """Return the condition's first true value; fail when there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited {seconds} s, in vain, until {what}")
