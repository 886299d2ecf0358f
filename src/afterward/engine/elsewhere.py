"""What passes jobs on to another system, in the process of a worker that claims them for it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from afterward.job import Lease


class Elsewhere(Protocol):
    """Takes leases in place of a worker's own running of them."""

    def wants(self) -> Collection[str]:
        """The tasks whose jobs it takes now; none while it cannot pass any on."""
        ...

    def unfit(self) -> Collection[str]:
        """The fingerprints of those of its signatures to which what is marked as unfit is passed over now."""
        ...

    def take(self, lease: Lease, let_go: Callable[[], None]) -> None:
        """Pass this attempt on, or release it. `let_go`: called once, on this loop, when it is off its hands."""
        ...
