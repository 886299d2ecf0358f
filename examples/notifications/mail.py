"""Mail: which addresses are taken, what a notification looks like, and how it reaches the mail server."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import localtime
from enum import StrEnum
from typing import Annotated

import aiosmtplib
from pydantic import AfterValidator

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})*")
_LONGEST_ADDRESS, _LONGEST_LOCAL_PART = 254, 64


def check_address(address: str) -> str:
    """Return a plain ASCII `name@host` as it is; raise ValueError on everything else.

    The form is RFC 5321's dot-string, the lengths are those of its section 4.5.3.1. Quoted names are refused, so that
    no space, comma, angle bracket or line break ever gets near a header.
    """
    if len(address) > _LONGEST_ADDRESS:
        raise ValueError(f"an e-mail address has at most {_LONGEST_ADDRESS} characters")
    if not _ADDRESS.fullmatch(address) or address.index("@") > _LONGEST_LOCAL_PART:
        raise ValueError("not an e-mail address of the form name@example.com")
    return address


EmailAddress = Annotated[str, AfterValidator(check_address)]


class Tls(StrEnum):
    """How the connection to the mail server is secured: not at all, after a plain start, or from its first byte."""

    NONE = "none"
    STARTTLS = "starttls"
    TLS = "tls"


_USUAL_PORTS = {Tls.NONE: 25, Tls.STARTTLS: 587, Tls.TLS: 465}


class SettingsError(Exception):
    """A setting in the environment cannot be used; the message names it and what it may be."""


@dataclass(frozen=True)
class MailSettings:
    """The mail server, and who our mail is from."""

    host: str
    port: int
    tls: Tls
    username: str | None
    password: str | None = field(repr=False)
    sender: str


def settings_from(environment: Mapping[str, str]) -> MailSettings:
    """Read the `SMTP_*` variables; an empty one counts as not set. Raises SettingsError."""

    def read(name: str) -> str | None:
        return environment.get(name) or None

    tls = _tls(read("SMTP_TLS") or Tls.NONE)
    username, password = read("SMTP_USERNAME"), read("SMTP_PASSWORD")
    if (username is None) != (password is None):
        raise SettingsError("set both SMTP_USERNAME and SMTP_PASSWORD, or neither")
    if username is not None and tls is Tls.NONE:
        raise SettingsError("a password would travel in the clear: set SMTP_TLS to starttls or tls")
    return MailSettings(
        host=read("SMTP_HOST") or "localhost",
        port=_port(read("SMTP_PORT") or str(_USUAL_PORTS[tls])),
        tls=tls,
        username=username,
        password=password,
        sender=_sender(read("SMTP_SENDER") or "notifications@localhost"),
    )


def _tls(value: str) -> Tls:
    try:
        return Tls(value)
    except ValueError:
        raise SettingsError(f"SMTP_TLS is one of {', '.join(Tls)}; not {value!r}") from None


def _port(value: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", value) or not 1 <= int(value) <= 65535:
        raise SettingsError(f"SMTP_PORT is a number from 1 to 65535; not {value!r}")
    return int(value)


def _sender(value: str) -> str:
    try:
        return check_address(value)
    except ValueError as error:
        raise SettingsError(f"SMTP_SENDER: {error}; got {value!r}") from None


def compose(recipient: str, text: str, *, sender: str, key: str) -> EmailMessage:
    """Make the mail. The same key makes the same Message-ID, whatever characters the key has (RFC 5322, 3.6.4)."""
    mail = EmailMessage()
    mail["From"] = Address(addr_spec=sender)
    mail["To"] = Address(addr_spec=recipient)
    mail["Subject"] = "Notification"
    mail["Date"] = localtime()
    mail["Message-ID"] = f"<{hashlib.sha256(key.encode()).hexdigest()[:32]}@{mail['From'].addresses[0].domain}>"
    mail.set_content(text)
    return mail


class MailRefused(Exception):
    """The mail server will never take this mail: it answered its recipient or its content with a 5xx."""


async def deliver(mail: EmailMessage, settings: MailSettings) -> None:
    """Hand the mail to the mail server; when this returns, the server has taken it.

    Raises MailRefused when trying again is of no use; any other error is one that may pass.
    """
    try:
        await aiosmtplib.send(
            mail,
            hostname=settings.host,
            port=settings.port,
            username=settings.username,
            password=settings.password,
            use_tls=settings.tls is Tls.TLS,
            start_tls=settings.tls is Tls.STARTTLS,
            timeout=30,
        )
    except aiosmtplib.SMTPRecipientsRefused as error:
        raise _refusal(error.recipients[0]) from error
    except aiosmtplib.SMTPDataError as error:
        raise _refusal(error) from error


def _refusal(error: aiosmtplib.SMTPResponseException) -> Exception:
    return MailRefused(f"{error.code} {error.message}") if error.code >= 500 else error
