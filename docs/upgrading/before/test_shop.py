"""What the shop does afterwards."""

import smtplib
from email.message import EmailMessage
from pathlib import Path
from typing import Self

import pytest
from fastapi.testclient import TestClient

from shop.main import app


class Mailbox(list[EmailMessage]):
    """A mail server, as far as the shop can tell."""

    def __call__(self, host: str, port: int) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    def send_message(self, mail: EmailMessage) -> None:
        self.append(mail)


@pytest.fixture
def mailbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mailbox:
    mailbox = Mailbox()
    monkeypatch.setattr(smtplib, "SMTP", mailbox)
    for name, value in {"SMTP_PORT": "25", "SHOP_DATABASE": tmp_path / "db", "SHOP_LOG": tmp_path / "log"}.items():
        monkeypatch.setenv(name, str(value))
    return mailbox


def test_an_order_is_confirmed(mailbox: Mailbox) -> None:
    client = TestClient(app)
    client.post("/orders", json={"email": "ada@example.com", "item": "a book"})
    assert [mail["To"] for mail in mailbox] == ["ada@example.com", "stock@example.com"]
