"""A network between clients and their server, on which things go wrong."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Flag, auto
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_PIECE = 65536
_SECONDS = 30.0


class Way(Flag):
    """Which way data goes."""

    requests = auto()
    """From the client to the server."""
    replies = auto()
    """From the server to the client."""
    both = requests | replies


class Proxy:
    """Passes on what clients and a server of 127.0.0.1 say to each other, until it is told otherwise.

    It lives in a thread of its own. When a method that switches returns, the switch has been made, for connections that
    are open as for those to come; it holds until `heal`, with those that were made before. `port`: where to connect to.
    """

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        """Where new connections lead to."""
        self.port = 0
        self._network = _Network()
        self._lines: dict[asyncio.Task[None], _Line] = {}
        self._errors: list[BaseException] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(_SECONDS)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._errors:
            raise self._errors[0]

    def url(self, of_server: str) -> str:
        """The URL of the server, led through here."""
        parts = urlsplit(of_server)
        account, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{account}{at}127.0.0.1:{self.port}").geturl()

    @property
    def cuts(self) -> int:
        """How many replies have been cut."""
        return self._network.cuts

    def blackhole(self, way: Way = Way.both) -> None:
        """Nothing arrives, and nobody learns that the other has closed. After `heal` what was sent meanwhile arrives.

        Who connects is connected, and hears nothing.
        """
        self._switch(lambda: self._network.hold(way))

    def swallow(self) -> None:
        """Nothing arrives any more on connections that are open now, nor their end, for good. New ones are well."""
        self._switch(self._swallow)

    def slow(self, seconds: float) -> None:
        """Every piece of data takes so long, each way."""
        self._switch(lambda: self._network.slow(seconds))

    def reset(self) -> None:
        """Every connection is reset, at both ends, and so is each new one."""
        self._switch(self._reset)

    def tear(self, after: int, about: bytes = b"") -> None:
        """Cut one reply in its middle: the next to a request that contains `about`, after so many bytes.

        By the time at which the client is told of the connection's end, the server has carried out the request, has
        said all that it had to say, and has ended too. After that cut all is well; whether it has been made, `cuts`
        tells. A reply that is not longer is passed on, and counts as the beginning of the next on its connection.
        """
        self._switch(lambda: self._network.arm(_Cut(about, after)))

    def lose_answer(self, about: bytes = b"") -> None:
        """Cut one reply, as `tear` does, before its first byte."""
        self.tear(0, about)

    def heal(self) -> None:
        """All is well again."""
        self._switch(self._heal)

    def _switch(self, change: Callable[[], None]) -> None:
        async def make() -> None:
            change()

        asyncio.run_coroutine_threadsafe(make(), self._loop).result(_SECONDS)

    async def _open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._loop.add_reader(self._listener, self._accept)

    async def _close(self) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()
        tasks = list(self._lines)
        self._reset()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self) -> None:
        """In one step: asyncio's own ways would lose a connection when they are ended in their midst."""
        try:
            accepted, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        line = _Line(self._network, accepted)
        task = self._loop.create_task(line.run(self.server_port))
        self._lines[task] = line
        task.add_done_callback(self._forget)

    def _forget(self, task: "asyncio.Task[None]") -> None:
        self._lines.pop(task).end()
        if not task.cancelled() and (error := task.exception()):
            self._errors.append(error)

    def _heal(self) -> None:
        self._network.heal()
        for line in self._lines.values():
            line.spare()

    def _swallow(self) -> None:
        for line in self._lines.values():
            line.swallow()

    def _reset(self) -> None:
        self._network.is_resetting = True
        for task, line in self._lines.items():
            line.reset()
            task.cancel()


@dataclass(frozen=True)
class _Cut:
    """One reply to be cut: that to a request that contains `about`, after so many bytes."""

    about: bytes
    after: int


class _Network:
    """What goes wrong at this moment."""

    def __init__(self) -> None:
        self._open = {way: asyncio.Event() for way in Way.both}
        self.cuts = 0
        self.heal()

    def heal(self) -> None:
        self.is_resetting = False
        self._delay = 0.0
        self._armed: _Cut | None = None
        for is_open in self._open.values():
            is_open.set()

    def hold(self, held: Way) -> None:
        for way in held:
            self._open[way].clear()

    def slow(self, seconds: float) -> None:
        self._delay = seconds

    def arm(self, cut: _Cut) -> None:
        self._armed = cut

    async def passage(self, way: Way) -> None:
        """Wait until something may pass that has been sent."""
        if self._delay:
            await asyncio.sleep(self._delay)
        await self._open[way].wait()

    def cut_for(self, request: bytes, before: bytes) -> _Cut | None:
        """What is to be done to the reply to this piece of a request, which came after another."""
        if self._armed is None:
            return None
        overlap = len(self._armed.about) - 1
        if self._armed.about not in (before[-overlap:] if overlap > 0 else b"") + request:
            return None
        cut, self._armed = self._armed, None
        return cut


class _End:
    """One end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self) -> bytes:
        """Nothing when the other side has ended."""
        return await self._reader.read(_PIECE)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def send_end(self) -> None:
        """No more will be sent."""
        self._writer.write_eof()

    def close(self) -> None:
        """Say what there is to be said, and end."""
        self._writer.close()

    def reset(self) -> None:
        """End with RST."""
        own: socket.socket = self._writer.get_extra_info("socket")
        if own.fileno() != -1:
            _set_to_reset(own)
        self._writer.transport.abort()


class _Line:
    """A client's connection, and the one to the server that is made for it."""

    def __init__(self, network: _Network, accepted: socket.socket) -> None:
        self._network = network
        self._accepted = accepted
        self._client: _End | None = None
        self._server: _End | None = None
        self._cut: _Cut | None = None
        self._is_swallowed = False

    def reset(self) -> None:
        """Both connections."""
        for end in (self._client, self._server):
            if end:
                end.reset()

    def end(self) -> None:
        """Both connections, in good order when they had been made."""
        if self._client is None:
            _set_to_reset(self._accepted)
            self._accepted.close()
        for end in (self._client, self._server):
            if end:
                end.close()

    def swallow(self) -> None:
        """Let nothing pass any more."""
        self._is_swallowed = True

    def spare(self) -> None:
        """Cut no reply that has not been cut."""
        self._cut = None

    async def run(self, server_port: int) -> None:
        """Until one side ends."""
        self._client = client = _End(*await asyncio.open_connection(sock=self._accepted))
        if self._network.is_resetting:
            return client.reset()
        await self._passage(Way.requests)
        try:
            self._server = server = _End(*await asyncio.open_connection("127.0.0.1", server_port))
        except OSError:
            return client.reset()
        try:
            await self._pass_on(client, server)
        except* ConnectionError:
            self.reset()

    async def _pass_on(self, client: _End, server: _End) -> None:
        async with asyncio.TaskGroup() as passing:
            requests = passing.create_task(self._pass_requests(client, server))
            is_cut = await self._pass_replies(client, server)
            requests.cancel()
        if is_cut:
            self._network.cuts += 1
            server.send_end()
            while await server.receive():
                pass

    async def _passage(self, way: Way) -> None:
        await self._network.passage(way)
        if self._is_swallowed:
            await asyncio.Event().wait()

    async def _pass_requests(self, client: _End, server: _End) -> None:
        before = b""
        try:
            while data := await client.receive():
                await self._passage(Way.requests)
                self._cut = self._cut or self._network.cut_for(data, before)
                await server.send(data)
                before = data
        except ConnectionError:
            await self._passage(Way.requests)
            server.reset()
        else:
            await self._passage(Way.requests)
            server.send_end()

    async def _pass_replies(self, client: _End, server: _End) -> bool:
        """Until the server has ended; whether instead a reply is to be cut here."""
        try:
            while data := await server.receive():
                await self._passage(Way.replies)
                if self._cut is None:
                    await client.send(data)
                    continue
                cut, self._cut = self._cut, replace(self._cut, after=self._cut.after - len(data))
                await client.send(data[: cut.after])
                if len(data) > cut.after:
                    return True
        except ConnectionError:
            await self._passage(Way.replies)
            raise
        await self._passage(Way.replies)
        return False


def _set_to_reset(connection: socket.socket) -> None:
    """It ends with RST when it is closed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
