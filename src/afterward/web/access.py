"""Who asks, and whose jobs they may see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Depends

from afterward.errors import ConfigurationError
from afterward.job import Job


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `owner`: whose jobs are theirs; None for one who has none of their own, and sees those of nobody."""

    owner: str | None
    is_admin: bool = False

    def may_see(self, job: Job) -> bool:
        """Is it theirs to look at?"""
        return self.is_admin or job.owner == self.owner


def caller_of(owner: Callable[..., Any] | None, admin: Callable[..., Any] | None) -> Callable[..., Any]:
    """The dependency that gives the `Caller` of a request, by what the application's own two answer."""

    async def caller(who: Any = Depends(owner or _nobody), is_admin: Any = Depends(admin or _no)) -> Caller:
        if owner is not None and not (isinstance(who, str) and who):
            raise ConfigurationError(
                f"router(owner={_name(owner)}): it answered a {type(who).__name__}; it must answer the owner as a text "
                f"that is not empty, the same that the jobs were given, or raise HTTPException(401)"
            )
        if not isinstance(is_admin, bool):
            raise ConfigurationError(
                f"router(admin={_name(admin)}): it answered a {type(is_admin).__name__}; it must answer True or False"
            )
        return Caller(who, is_admin)

    return caller


def _nobody() -> None:
    return None


def _no() -> bool:
    return False


def _name(dependency: object) -> str:
    return getattr(dependency, "__qualname__", type(dependency).__name__)
