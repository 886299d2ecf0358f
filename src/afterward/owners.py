"""The dependency by which the jobs of a request are its caller's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from fastapi import Depends
from fastapi.requests import HTTPConnection

from afterward.calls import calls_in
from afterward.dependencies import INSIDE
from afterward.errors import ConfigurationError
from afterward.task import Owner


def owned_by(owner: Owner, dependency: Callable[..., Any], key: Callable[[Any], str]) -> Callable[..., Any]:
    """What gives the same as `dependency`, and makes the jobs of the request those of whoever it gives."""
    inner = Depends(dependency)

    async def owned(connection: HTTPConnection, who: Any = inner) -> Any:
        call = calls_in(connection.scope).get(owner)
        if call is not None and who is not None:
            call.give_to(_text_of(who, key))
        return who

    setattr(owned, INSIDE, inner)
    return owned


def _text_of(who: Any, key: Callable[[Any], str]) -> str:
    if key is str and not isinstance(who, str | int | UUID):
        raise ConfigurationError(
            f"tasks.owned_by(…): the dependency gives a {type(who).__name__}, and the owner is kept as a text that "
            f"never changes; say which, as in tasks.owned_by(current_user, key=lambda user: str(user.id))"
        )
    return key(who)
