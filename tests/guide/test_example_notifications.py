"""The example in `examples/notifications`: real HTTP in, real mail out, with `kill -9` in between.

Nothing here is faked: uvicorn serves the app in a process of its own, and the mail goes over SMTP to the example's
mailbox, another process, which puts each mail on the disk before it says that it took it.
"""

import asyncio
import re
import subprocess
import sys
from collections import Counter

import pytest

from tests.support.example import World, wait_until


def test_a_notification_is_answered_202_and_its_mail_arrives(world: World) -> None:
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


def test_without_a_query_only_the_mail_is_sent(world: World) -> None:
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


def test_a_bad_address_is_refused_and_nothing_is_sent(world: World) -> None:
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


def test_every_accepted_mail_arrives_though_the_mail_server_is_down_and_the_app_is_killed(world: World) -> None:
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


def test_a_mail_that_was_being_sent_at_the_kill_comes_again_as_the_same_mail(world: World) -> None:
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


def test_a_mail_that_the_server_refuses_for_good_is_tried_once(world: World) -> None:
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
def test_a_wrong_setting_is_named_before_the_app_serves(world: World, settings: dict[str, str], message: str) -> None:
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
