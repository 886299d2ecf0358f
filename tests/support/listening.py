"""Clients that listen to streams over real connections, and lose them."""

import http.client
import json
import socket
from collections.abc import Iterator, Sequence
from typing import Any, Self
from urllib.parse import urlencode

from tests.support.serving import Address
from tests.support.telling import Browser, Told


class Connection:
    """One connection to a stream, read as its bytes come. `status`: of the answer; `headers`: in lower case.

    `browser`: has been here before. `buffer`: how many bytes the system keeps of what is not read yet.
    """

    def __init__(
        self,
        address: Address,
        path: str,
        browser: Browser | None = None,
        *,
        buffer: int | None = None,
        cookie: str | None = None,
        **query: str,
    ) -> None:
        self.browser = Browser("" if browser is None else browser.id)
        self._connection = http.client.HTTPConnection(address.host, address.port, timeout=20)
        if buffer is not None:
            self._connection.sock = socket.socket()
            self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            self._connection.sock.connect((address.host, address.port))
        headers = {"Accept": "text/event-stream"} | ({} if cookie is None else {"Cookie": cookie})
        if self.browser.id:
            headers["Last-Event-ID"] = self.browser.id
        self._connection.request("GET", f"{path}?{urlencode(query)}" if query else path, headers=headers)
        self._response = self._connection.getresponse()
        self.status = self._response.status
        self.headers = {name.lower(): value for name, value in self._response.getheaders()}
        self._coming: Iterator[Told] = iter(())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Told]:
        """Events as they come, until the server ends the stream. What is not taken yet, the browser has not seen."""
        while True:
            for event in self._coming:  # noqa: UP028 - `yield from` would end what comes, where only so many are taken
                yield event
            data = self._read()
            if not data and self._response.isclosed():
                return
            self._coming = self.browser.read(data)

    def read_some(self) -> list[Told]:
        """Wait for the next bytes; the events that they complete, which are still to be taken."""
        events = list(self.browser.read(self._read()))
        self._coming = iter([*self._coming, *events])
        return events

    def _read(self) -> bytes:
        """The next bytes; none at the end. Raises `ConnectionError` when the stream breaks."""
        try:
            return self._response.read1()
        except http.client.IncompleteRead as error:
            raise ConnectionError("the stream broke") from error

    def take(self, count: int) -> list[Told]:
        """The next so many events."""
        events = iter(self)
        return [next(events) for _ in range(count)]

    def text(self) -> str:
        """The rest of the answer, as it is."""
        return self._response.read().decode()

    def json(self) -> Any:
        return json.loads(self.text())

    def close(self) -> None:
        """Hang up."""
        self._response.close()
        self._connection.close()


def said(events: Sequence[Told]) -> list[tuple[str, Any]]:
    """Type and data of events: of those that are the job's own, what it said; of the end, how it ended."""
    return [(event, data["status"] if event == "done" else data.get("data", data)) for event, data, _ in events]
