"""The example in `examples/notifications`: real HTTP in, real mail out, with `kill -9` in between.

Nothing here is faked: uvicorn serves the app in a process of its own, and the mail goes over SMTP to the example's
mailbox, another process, which puts each mail on the disk before it says that it took it.
"""

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
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import httpx
import pytest

REPOSITORY = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
T = TypeVar("T")


def test_a_notification_is_answered_202_and_its_mail_arrives(world: "World") -> None:
    """The answer comes at once, with the id of the job; the mail and the line in the log come after it."""
    world.start_mailbox()
    world.start_app()

    response = world.post("johndoe@example.com", q="what is new?")

    assert response.status_code == 202
    job = response.json()["job"]
    assert response.json() == {"message": "Notification sent in the background", "job": job}

    (mail,) = world.wait_for_mails(1)
    assert mail["To"] == "johndoe@example.com"
    assert mail["From"] == "news@example.org"
    assert mail["Message-ID"].endswith("@example.org>")
    assert mail.get_content().strip() == "some notification"

    (line,) = wait_until(world.log_lines, "the query is logged")
    assert line["query"] == "what is new?"
    assert line["job"] != job


def test_without_a_query_only_the_mail_is_sent(world: "World") -> None:
    """The dependency adds its task only when the request has a query."""
    world.start_mailbox()
    app = world.start_app()

    assert world.post("johndoe@example.com").status_code == 202

    world.wait_for_mails(1)
    app.stop()
    assert world.log_lines() == []


BAD_ADDRESSES = [
    "not-an-address",
    "@example.com",
    "johndoe@",
    "john doe@example.com",
    "john@doe@example.com",
    "johndoe@-example.com",
    "johndoe@example..com",
    ".johndoe@example.com",
    '"john doe"@example.com',
    "John <johndoe@example.com>",
    "johndoe@example.com,eve@example.com",
    "johndoe@example.com\r\nBcc: eve@example.com",
    "johndoe@example.com\n",
    "johndoe@example.com\r",
    "johndoe@example.com\0",
    "jöhndoe@example.com",
    "johndoe@exämple.com",
    "j" * 65 + "@example.com",
    "johndoe@" + "d" * 64 + ".com",
    "johndoe@" + "example." * 31 + "com",
]


def test_a_bad_address_is_refused_and_nothing_is_sent(world: "World") -> None:
    """422, no mail, and the task that the dependency added is discarded with the request."""
    world.start_mailbox()
    app = world.start_app()

    answers = {address: world.post(address, q="never logged").status_code for address in BAD_ADDRESSES}
    assert answers == dict.fromkeys(BAD_ADDRESSES, 422)

    world.post("johndoe@example.com")
    world.wait_for_mails(1)
    app.stop()
    assert [mail["To"] for mail in world.mails()] == ["johndoe@example.com"]
    assert world.log_lines() == []


def test_every_accepted_mail_arrives_though_the_mail_server_is_down_and_the_app_is_killed(world: "World") -> None:
    """20 mails are accepted that nobody takes, `kill -9`, app and mail server come up: 20 mails, each once."""
    app = world.start_app()
    addresses = {f"reader-{number}@example.com" for number in range(20)}

    answers = asyncio.run(world.post_at_once(addresses))
    app.kill()
    assert [answer.status_code for answer in answers] == [202] * 20
    assert world.mails() == []

    app = world.start_app()
    world.start_mailbox()

    world.wait_for_mails(20)
    app.stop()
    mails = world.mails()
    assert {mail["To"] for mail in mails} == addresses
    assert len({mail["Message-ID"] for mail in mails}) == len(mails) == 20


def test_a_mail_that_was_being_sent_at_the_kill_comes_again_as_the_same_mail(world: "World") -> None:
    """What the app knew to be sent is sent once. What it did not know of comes again, with the Message-ID it had."""
    mailbox = world.start_mailbox()
    app = world.start_app()
    known = {f"known-{number}@example.com" for number in range(5)}
    asyncio.run(world.post_at_once(known))
    world.wait_for_mails(5)
    app.stop()
    mailbox.stop()

    mailbox = world.start_mailbox("--hesitate", "60")
    app = world.start_app()
    in_flight = {f"in-flight-{number}@example.com" for number in range(5)}
    asyncio.run(world.post_at_once(in_flight))
    world.wait_for_mails(10)
    app.kill()
    mailbox.kill()

    world.start_mailbox()
    app = world.start_app()
    world.wait_for_mails(15)
    app.stop()

    copies = Counter(mail["To"] for mail in world.mails())
    assert copies == dict.fromkeys(known, 1) | dict.fromkeys(in_flight, 2)
    assert len({mail["Message-ID"] for mail in world.mails()}) == 10


def test_a_mail_that_the_server_refuses_for_good_is_tried_once(world: "World") -> None:
    """A refusal is an answer: the job fails at once, where a mail server that is down would be tried again."""
    mailbox = world.start_mailbox()
    app = world.start_app()

    job = world.post("nobody@example.invalid").json()["job"]

    wait_until(lambda: re.search(f"{job}.*outcome=failed.*MailRefused", app.output()), "the job has failed")
    assert mailbox.output().count("refused nobody@example.invalid") == 1


BAD_SETTINGS = [
    ({"SMTP_TLS": "yes"}, "SMTP_TLS is one of none, starttls, tls; not 'yes'"),
    ({"SMTP_PORT": "smtp"}, "SMTP_PORT is a number from 1 to 65535; not 'smtp'"),
    ({"SMTP_PORT": "65536"}, "SMTP_PORT is a number from 1 to 65535; not '65536'"),
    ({"SMTP_SENDER": "News"}, "SMTP_SENDER: not an e-mail address of the form name@example.com; got 'News'"),
    ({"SMTP_USERNAME": "me"}, "set both SMTP_USERNAME and SMTP_PASSWORD, or neither"),
    (
        {"SMTP_USERNAME": "me", "SMTP_PASSWORD": "secret", "SMTP_TLS": "none"},
        "a password would travel in the clear: set SMTP_TLS to starttls or tls",
    ),
]


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS, ids=[message for _, message in BAD_SETTINGS])
def test_a_wrong_setting_is_named_before_the_app_serves(world: "World", settings: dict[str, str], message: str) -> None:
    """A mistake in the environment ends the start-up, and the last line says which one it is."""
    run = subprocess.run(
        [sys.executable, "-c", "import examples.notifications.app"],
        env=world.environment | settings,
        cwd=world.folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == f"examples.notifications.mail.SettingsError: {message}"


# The world of these tests: one folder, one port for the mail server, and the processes started in it.


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
            name: value for name, value in os.environ.items() if not name.startswith(("AFTERWARD_", "SMTP_"))
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
        with httpx.Client(base_url=self._url, trust_env=False, timeout=30) as client:
            return client.post(f"/send-notification/{quote(address, safe='')}", params=query)

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


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world whose processes are ended with the test, however it ends. When it fails, pytest shows what they said."""
    with ExitStack() as processes:
        yield World(tmp_path, processes)
    for output in sorted(tmp_path.glob("output-*.txt")):
        print(f"--- {output}\n{output.read_text()}")


def wait_until(condition: Callable[[], T], what: str, seconds: float = 30) -> T:
    """Return the condition's first true value; fail when there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited {seconds} s, in vain, until {what}")
