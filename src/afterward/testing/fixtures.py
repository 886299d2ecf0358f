"""`Bench` as a pytest fixture. pytest is imported when one is made, and not before."""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime
from typing import Any, Literal

from afterward.app import Afterward
from afterward.testing.bench import Bench


def fixture(
    tasks: Afterward,
    *,
    manual: bool = False,
    now: datetime | None = None,
    raise_failures: bool = True,
    autouse: bool = False,
    scope: Literal["function", "class", "module", "package", "session"] = "function",
) -> Any:
    """A pytest fixture that gives a fresh `Bench`; the name it is assigned to in `conftest.py` is the fixture's name.

    `manual`, `now`, `raise_failures`: as for `Bench`. `autouse`, `scope`: as for `pytest.fixture`; with `autouse`, no
    test can ever touch the real store.
    """
    import pytest

    @pytest.fixture(autouse=autouse, scope=scope)
    def bench() -> Generator[Bench]:
        with Bench(tasks, manual=manual, now=now, raise_failures=raise_failures) as bench:
            yield bench

    return bench
