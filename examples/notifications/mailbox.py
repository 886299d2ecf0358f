"""A mail server for trying things out: it takes and prints every mail, and delivers none.

    python -m examples.notifications.mailbox --port 8025 [--maildir DIR] [--hesitate SECONDS]

Only what is for a host under `.invalid`, where nobody can ever be (RFC 2606), is refused for good.
"""

import argparse
import asyncio
import os
import signal
from mailbox import Maildir
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

LOOPBACK = "127.0.0.1"


class Mailbox:
    """The aiosmtpd handler. With a maildir, a mail is on the disk before its sender is told that it was taken."""

    def __init__(self, maildir: Path | None, hesitation_seconds: float) -> None:
        self._path = maildir
        self._hesitation_seconds = hesitation_seconds
        self._maildir = None if maildir is None else Maildir(maildir)

    async def handle_RCPT(  # noqa: N802 - the name by which aiosmtpd finds it
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Take any recipient but those who cannot exist."""
        if address.endswith(".invalid"):
            print(f"--- refused {address}", flush=True)
            return "550 5.1.2 there is no such host"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - as above
        """Keep and print one mail; ask the sender to try later if it cannot be kept."""
        content = envelope.original_content or b""
        try:
            self._keep(content)
        except OSError as error:
            return f"451 the mail cannot be kept: {error.strerror}"
        text = content.decode(errors="replace").replace("\r\n", "\n")
        print(f"--- from {envelope.mail_from} to {', '.join(envelope.rcpt_tos)}\n{text}", flush=True)
        await asyncio.sleep(self._hesitation_seconds)
        return "250 OK"

    def _keep(self, content: bytes) -> None:
        if self._path is None or self._maildir is None:
            return
        self._maildir.add(content)  # synced by the standard library; its name in the directory is not
        if os.name == "posix":
            directory = os.open(self._path / "new", os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)


async def serve(port: int, maildir: Path | None, hesitation_seconds: float) -> None:
    """Take mail on loopback until SIGTERM or SIGINT; port 0 is a free one, named in the line that says we listen."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: loop.call_soon_threadsafe(stop.set))

    mailbox = Mailbox(maildir, hesitation_seconds)
    server = await loop.create_server(lambda: SMTP(mailbox, hostname="localhost", loop=loop), LOOPBACK, port)
    print(f"listening on {LOOPBACK}:{server.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()
    server.close()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="mailbox", description="Print every mail that arrives on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=8025, help="0 takes a free port")
    parser.add_argument("--maildir", type=Path, help="also keep each mail in this directory")
    parser.add_argument("--hesitate", type=float, default=0, help="seconds from having a mail to saying so")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port, arguments.maildir, arguments.hesitate))


if __name__ == "__main__":
    main()
