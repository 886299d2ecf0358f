"""The keys that requests of this process have reserved."""

from __future__ import annotations

import asyncio

from afterward.errors import StoreError
from afterward.liveness import Liveness
from afterward.stores.base import Store
from afterward.stores.seen import Reservation, Reserved

_TRY_AGAIN_SECONDS = 1.0
_LATE_SECONDS = 30.0
"""A reservation whose answer was lost is made by then, if it is made at all."""


class Reservations:
    """Reserves keys in this process's name, and sees that none stays reserved for a request that is over."""

    def __init__(self, store: Store, liveness: Liveness) -> None:
        self._store = store
        self._liveness = liveness

    async def reserve(self, reservation: str, scope: str, key: str, fingerprint: str) -> Reservation:
        """Reserve a key for a request. Raises `StoreUnavailable`; then it is not reserved, or not for long.

        One that is reserved is this request's until `forget`.
        """
        process = self._liveness.process or await self._liveness.start()
        is_reserved = False
        self._liveness.holdings.expect_reservation(reservation)
        try:
            answer = await self._reserve(reservation, scope, key, fingerprint, process)
            is_reserved = answer.state is Reserved.reserved
        finally:
            if not is_reserved:
                self.forget(reservation)
        return answer

    async def _reserve(self, reservation: str, scope: str, key: str, fingerprint: str, process: str) -> Reservation:
        while True:
            try:
                answer = await self._store.reserve(reservation, scope, key, fingerprint, process)
            except BaseException:  # a cancellation, too: it may be reserved all the same
                self._drop_soon(reservation)
                raise
            if answer.state is not Reserved.stranger:
                return answer
            process = await self._liveness.another_identity(process)  # its row was gone

    def forget(self, reservation: str) -> None:
        """Its request is over. Where the store has it still, and not completed, the next heartbeat drops it.

        So it does where the store has lost that it was completed, or dropped.
        """
        self._liveness.holdings.forget_reservation(reservation)

    async def drop(self, reservation: str, *, at_once: bool) -> None:
        """Give it up, unless it is completed. What the store cannot do now is done as soon as it can.

        `at_once`: it is done when this returns, if it can be.
        """
        if not at_once:
            self._drop_soon(reservation)
            return
        try:
            await self._store.drop([reservation])
        except StoreError:
            self._drop_soon(reservation)
        except BaseException:
            self._drop_soon(reservation)
            raise

    async def amend(self, reservation: str, answer: str) -> bool:
        """Replace what is kept of an answer; False where nothing is. Raises `StoreUnavailable`."""
        return await self._store.amend(reservation, answer)

    def _drop_soon(self, reservation: str) -> None:
        self._liveness.spawn(lambda: self._drop_later(reservation))

    async def _drop_later(self, reservation: str) -> None:
        await self._drop_until_done(reservation)
        await asyncio.sleep(_LATE_SECONDS)
        await self._drop_until_done(reservation)

    async def _drop_until_done(self, reservation: str) -> None:
        while True:
            try:
                return await self._store.drop([reservation])
            except StoreError:
                await asyncio.sleep(_TRY_AGAIN_SECONDS)
