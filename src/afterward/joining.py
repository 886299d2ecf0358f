"""The dependency by which the tasks of a request join the transaction of its session or connection."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Literal

from fastapi import Depends
from fastapi.requests import HTTPConnection

from afterward.calls import calls_in
from afterward.dependencies import INSIDE
from afterward.onlookers import Participant
from afterward.task import Owner
from afterward.transactions.joined import Transaction

_FUNCTION_EXITS = "fastapi_function_astack"

Scope = Literal["function", "request"]


def joining(owner: Owner, dependency: Callable[..., Any], scope: Scope | None) -> Callable[..., Any]:
    """What gives the same as `dependency`, and has the tasks of the request join it."""
    inner = Depends(dependency, scope=scope)

    async def joined(connection: HTTPConnection, session: Any = inner) -> Any:
        call = calls_in(connection.scope).get(owner)
        if call is not None:
            transaction = call.join(session)
            exits: AsyncExitStack | None = connection.scope.get(_FUNCTION_EXITS)
            if scope == "function" and not transaction.writes_by_itself and exits is not None:
                exits.push_async_exit(_WriteOnExit(transaction))
        return session

    setattr(joined, INSIDE, inner)
    return joined


class _WriteOnExit(Participant):
    """What was added to a connection is written before the dependency that it comes from exits, and commits."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def __aenter__(self) -> None: ...

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None
    ) -> None:
        if error is None:
            await self._transaction.write()
