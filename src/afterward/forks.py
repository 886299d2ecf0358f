"""What is to be done in a forked child, by whatever is there at that moment."""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Callable

_methods: dict[int, weakref.WeakMethod[Callable[[], None]]] = {}
_numbers = itertools.count()


def call_in_child(method: Callable[[], None]) -> None:
    """Have this method called in each child that is forked from here on, as long as its object lives.

    `os.register_at_fork` would keep the object for as long as the process lasts.
    """
    number = next(_numbers)
    _methods[number] = weakref.WeakMethod(method, lambda _: _methods.pop(number, None))


def _call_all() -> None:
    for found in [*_methods.values()]:
        if (method := found()) is not None:
            method()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_call_all)
