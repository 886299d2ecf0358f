"""A request whose `Idempotency-Key` is reserved: its answer, held back until it is stored with the request's jobs."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from starlette.types import Message

from afterward.errors import ConfigurationError
from afterward.idempotency import HEADER, MAX_ANSWER_BYTES, KeptAnswer, answer_naming
from afterward.job import Completion, NewJob
from afterward.options import UNSAID, Joinable, Unsaid


class Keeping:
    """What the request is answered, by the application itself and by what stands around it.

    `reservation`: the id by which its key is reserved. `is_anybodys`: it was not known whose the key is.
    """

    def __init__(self, reservation: str, *, is_anybodys: bool) -> None:
        self.reservation = reservation
        self.is_anybodys = is_anybodys
        self._withheld: list[Message] = []
        self._start: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._stored_by: Joinable | Unsaid | None = UNSAID
        self._joined: list[str] = []
        self._taking = threading.Lock()

    def take(self, jobs: Sequence[NewJob], stored_by: Joinable | None) -> Sequence[NewJob]:
        """Jobs of this request, as they are to be stored by this session or connection, or by the request itself.

        What a transaction of the application's own commits is committed before the answer is known: until that is kept
        in its place, the answer to the same request names the jobs. Raises `ConfigurationError` for a second way to
        store them. May be called from any thread.
        """
        with self._taking:
            if self._stored_by is not UNSAID and self._stored_by is not stored_by:
                raise ConfigurationError(
                    f"a request with an {HEADER} has its tasks stored by one transaction, or a part of them could be "
                    f"lost to whoever sends it again; join one with all of them, or with none (transaction=None)"
                )
            self._stored_by = stored_by
            if stored_by is None:
                return jobs
            self._joined += [job.id for job in jobs]
            completion = Completion(self.reservation, answer_naming(self._joined).written())
        first, *others = jobs
        return [first._replace(completes=completion), *others]

    def hear(self, message: Message) -> None:
        """A part of the answer as the application gives it, inside of all middleware: that does its work on each.

        Raises `ConfigurationError` for an answer that cannot be kept.
        """
        kind = message["type"]
        if kind == "http.response.start":
            self._start = message["status"], list(message.get("headers", ()))  # middleware changes them in place
        elif kind == "http.response.body":
            self._body.append(message.get("body", b""))
            self._size += len(self._body[-1])
        if self._size > MAX_ANSWER_BYTES or kind in _UNHEARD:
            raise ConfigurationError(
                f"the answer to a request with an {HEADER} is kept, and this one has more than {MAX_ANSWER_BYTES} "
                f"bytes, or is sent by the server from a file; answer with the id of the job, and have the rest fetched"
            )

    def withhold(self, message: Message) -> None:
        """It leaves when the jobs of the request are stored."""
        self._withheld.append(message)

    def let_go(self) -> Sequence[Message]:
        """What was withheld."""
        withheld, self._withheld = self._withheld, []
        return withheld

    def answer(self) -> KeptAnswer | None:
        """What is to be kept of the answer; None where the application has given none."""
        if self._start is None:
            return None
        status, headers = self._start
        return KeptAnswer.of(status, headers, b"".join(self._body))


_UNHEARD = ("http.response.pathsend", "http.response.zerocopysend")
"""By these, a server is told to send what no application sees."""
