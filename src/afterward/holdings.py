"""What this process holds in a store, as far as it knows."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Known:
    """What a process believes to hold, at one moment: attempts by job id (0: held, not yet run).

    `certain`: stored, and not about to be let go. `possible`: on its way in or out.
    `tokens`: claims whose answer has not arrived. `files`: those that it is storing.
    `reservations`: those of its requests that are not over.
    """

    certain: dict[str, int]
    possible: dict[str, int]
    tokens: frozenset[str]
    files: frozenset[str] = frozenset()
    reservations: frozenset[str] = frozenset()


class Holdings:
    """What this process holds, and what is on its way in or out: the other side of what the store says of it.

    Always attempts (0: held, not yet run), never just jobs: one transaction may end an attempt and begin the next, both
    of this process, and what is said of the first must not touch the second. Used from any thread.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._certain: dict[str, int] = {}
        self._possible: dict[str, int] = {}
        self._tokens: set[str] = set()
        self._files: set[str] = set()
        self._reservations: set[str] = set()

    def expect(self, job: str, attempt: int) -> None:
        """It is about to be stored in this process's name."""
        with self._mutex:
            self._possible[job] = attempt

    def have(self, job: str, attempt: int) -> None:
        """It is stored in this process's name."""
        with self._mutex:
            self._certain[job] = attempt
            if self._possible.get(job) == attempt:
                del self._possible[job]

    def leave(self, attempts: Iterable[tuple[str, int]]) -> None:
        """They are about to be let go."""
        with self._mutex:
            for job, attempt in attempts:
                if self._certain.get(job) == attempt:
                    del self._certain[job]
                    self._possible[job] = attempt

    def forget(self, attempts: Iterable[tuple[str, int]]) -> None:
        """They are let go, or were never got."""
        with self._mutex:
            for job, attempt in attempts:  # no other of the same job
                if self._certain.get(job) == attempt:
                    del self._certain[job]
                if self._possible.get(job) == attempt:
                    del self._possible[job]

    @property
    def runs(self) -> bool:
        """Is anything held for certain?"""
        return bool(self._certain)

    def has(self, job: str, attempt: int) -> bool:
        """Is this attempt still ours, as far as this process knows?"""
        return self._certain.get(job) == attempt

    def expect_claim(self, token: str) -> None:
        """A claim is about to be made with this token."""
        with self._mutex:
            self._tokens.add(token)

    def forget_claim(self, token: str) -> None:
        """What that claim brought is known, or will never be."""
        with self._mutex:
            self._tokens.discard(token)

    def expect_files(self, files: Iterable[str]) -> None:
        """They are about to be stored in this process's name."""
        with self._mutex:
            self._files.update(files)

    def forget_files(self, files: Iterable[str]) -> None:
        """They are their jobs' by now, or nobody's."""
        with self._mutex:
            self._files.difference_update(files)

    def expect_reservation(self, reservation: str) -> None:
        """It is about to be made in this process's name."""
        with self._mutex:
            self._reservations.add(reservation)

    def forget_reservation(self, reservation: str) -> None:
        """Its request is over: it is completed by now, or nobody's."""
        with self._mutex:
            self._reservations.discard(reservation)

    def known(self) -> Known:
        """All of it, as it is at one moment."""
        with self._mutex:
            tokens, files, reservations = map(frozenset[str], (self._tokens, self._files, self._reservations))
            return Known(self._certain.copy(), self._possible.copy(), tokens, files, reservations)

    def clear(self) -> dict[str, int]:
        """Everything is lost: give the attempts that were held for certain."""
        with self._mutex:
            lost, self._certain = self._certain, {}
        return lost
