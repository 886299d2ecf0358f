"""Waking a waiting worker, in this process or in another on this machine, without polling.

Each process that waits for jobs listens on a UDP port of the loopback interface, and its row tells the others, who read
it with each heartbeat.
A datagram says nothing but "look"; one that is lost, forged or late costs one look at the store, or one wait until the
next.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from collections.abc import Iterable


class Doorbell:
    """Rung from any thread; waited for on one loop at a time."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._mutex = threading.Lock()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._rung = False
        self._others: tuple[int, ...] = ()
        self.port: int | None = None
        """Where it can be rung from other processes: once it has been waited for, if it can be at all."""

    def listen(self) -> bool:
        """Be there for others to ring, if that can be; has that begun just now?"""
        with self._mutex:
            if self._socket is not None:
                return False
            self._listen()
            return self._socket is not None

    def _listen(self) -> None:
        try:
            bell = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        except OSError:  # no descriptor is left: the timeout serves
            return
        bell.setblocking(False)
        try:
            bell.bind(("127.0.0.1", 0))
        except OSError:
            bell.close()
            return
        self._socket = bell
        self.port = int(bell.getsockname()[1])

    def close(self) -> None:
        """Let go of the port. Whoever waits is woken, and the last of them closes it."""
        with self._mutex:
            bell, self._socket, self.port = self._socket, None, None
            waiting = list(self._waiting)
        for loop, event in waiting:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                loop.call_soon_threadsafe(event.set)
        if bell is not None and not waiting:
            bell.close()

    def know_others(self, ports: Iterable[int]) -> None:
        """The doorbells of other processes, to be rung when nobody waits here."""
        self._others = tuple(ports)

    def ring(self) -> None:
        """Wake one who waits: here if there is one, else in another process."""
        others = self._others
        if not self._ring_here() and others:
            _ring_there([random.choice(others)])  # noqa: S311

    def ring_all(self) -> None:
        """Wake all who wait, here and in other processes: one alone may be about to leave as well."""
        self._ring_here(most=None)
        _ring_there(self._others)

    def _ring_here(self, most: int | None = 1) -> bool:
        """Wake so many who wait in this process, or all; is there one?"""
        with self._mutex:
            waiting = self._waiting[:most]
            self._rung = True
        woken = [_set(loop, event) for loop, event in waiting]
        return any(woken)

    async def wait(self, seconds: float) -> None:
        """Until it rings, or for so many seconds. A ring since the last wait counts."""
        loop = asyncio.get_running_loop()
        event = asyncio.Event()
        with self._mutex:
            if self._rung:
                self._rung = False
                return
            entry = (loop, event)
            self._waiting.append(entry)
        self.listen()
        listening = self._socket
        bell = listening
        if bell is not None:
            try:
                loop.add_reader(bell.fileno(), self._heard, bell, event)
            except (NotImplementedError, OSError):  # Windows' default loop has no add_reader: the timeout serves
                bell = None
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return
        finally:
            with self._mutex:
                self._waiting.remove(entry)
                self._rung = False
                left = listening is not self._socket and not self._waiting
            if bell is not None:
                loop.remove_reader(bell.fileno())
            if listening is not None and left:  # it was let go while this waited
                listening.close()

    @staticmethod
    def _heard(bell: socket.socket, event: asyncio.Event) -> None:
        event.set()
        with contextlib.suppress(OSError):  # "would block": all that came has been read
            while True:
                bell.recv(16)


def _set(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> bool:
    try:
        loop.call_soon_threadsafe(event.set)
    except RuntimeError:  # it is closed
        return False
    return True


def _ring_there(ports: Iterable[int]) -> None:
    """A hint only: who was not reached looks by himself soon."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.setblocking(False)
        for port in ports:
            out.sendto(b"!", ("127.0.0.1", port))
