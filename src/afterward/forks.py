"""What is to be done in a forked child, by whatever is there at that moment."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import MethodType
from typing import Any, cast
from weakref import WeakKeyDictionary

_to_call: WeakKeyDictionary[object, Callable[[Any], None]] = WeakKeyDictionary()


def call_in_child(method: Callable[[], None]) -> None:
    """Have this method called in each child that is forked from here on, as long as its object lives.

    One method of each object. `os.register_at_fork` would keep the object for as long as the process lasts.
    """
    bound = cast("MethodType", method)
    _to_call[bound.__self__] = bound.__func__


def _call_all() -> None:
    for thing, function in [*_to_call.items()]:
        function(thing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_call_all)
