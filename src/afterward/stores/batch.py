"""Natural batching, as far as it knows nothing of any store: operations that gather, and the delivery of their answers.

While one transaction is under way the next operations gather; when it is over they go as one. Where and how a batch is
carried out, and what gathers with what, is each store's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from afterward.errors import StoreError
from afterward.faults import Crash


class Operation(asyncio.Future[Any]):
    """One operation asked for on `loop`: what it comes to, to be awaited there.

    `answer`, `error`: the same, from when its batch is carried out, for whatever thread does that. `is_heavy`: it may
    take long. `is_repeated`: it was tried before, and may have been carried out then. It cannot be cancelled: who
    awaits it is cancelled only once the answer is known.
    """

    __slots__ = ("answer", "error", "has_rung", "is_heavy", "is_repeated", "items", "kind", "loop")

    def __init__(self, kind: str, items: Any, loop: asyncio.AbstractEventLoop, is_heavy: bool = False) -> None:
        super().__init__(loop=loop)
        self.kind = kind
        self.items = items
        self.loop = loop
        self.is_heavy = is_heavy
        self.answer: Any = None
        self.has_rung = self.is_repeated = False
        self.error: StoreError | Crash | None = None

    def cancel(self, msg: Any | None = None) -> bool:  # noqa: ARG002 - the signature is asyncio's
        return False


def by_kind(operations: Iterable[Operation], order: Iterable[str]) -> Iterator[tuple[str, list[Operation]]]:
    """The operations of each kind that there is, in the order in which kinds are to be carried out."""
    found: dict[str, list[Operation]] = {}
    for operation in operations:
        found.setdefault(operation.kind, []).append(operation)
    for kind in order:
        if kind in found:
            yield kind, found[kind]


def answer(operations: Iterable[Operation]) -> None:
    """Give those who wait what their operations came to. On the loop that they were asked for on."""
    for operation in operations:
        if operation.error is None:
            operation.set_result(operation.answer)
        else:
            operation.set_exception(operation.error)


def deliver(
    operations: Iterable[Operation],
    loops: Iterable[asyncio.AbstractEventLoop] = (),
    then: Callable[[], object] | None = None,
) -> list[asyncio.AbstractEventLoop]:
    """Have each loop answer its operations, from any thread: one that is blocked stops no other.

    `then` is called next, on each of their loops and of these `loops`. Returns those that are closed: nobody is left to
    be answered there.
    """
    theirs: dict[asyncio.AbstractEventLoop, list[Operation]] = {loop: [] for loop in loops}
    for operation in operations:
        theirs.setdefault(operation.loop, []).append(operation)
    closed: list[asyncio.AbstractEventLoop] = []
    for loop, answered in theirs.items():
        try:
            loop.call_soon_threadsafe(_answer_and_go_on, answered, then)
        except RuntimeError:
            closed.append(loop)
    return closed


def _answer_and_go_on(operations: Sequence[Operation], then: Callable[[], object] | None) -> None:
    answer(operations)
    if then is not None:
        then()
