"""Templates filled in; whatever stands in the store is text there, and never markup."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from afterward.errors import ConfigurationError
from afterward.job import Failure
from afterward.redaction import redacted
from afterward.sizes import many
from afterward.states import summary
from afterward.web.dashboard import wording

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def environment() -> Environment:
    """Where templates are. Raises `ConfigurationError` when the extra is not installed."""
    try:
        import jinja2
    except ImportError:
        raise ConfigurationError(
            "tasks.dashboard(…) needs Jinja2; install it: pip install 'afterward[dashboard]'"
        ) from None
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("afterward.web.dashboard"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words: tuple[Callable[..., Any], ...] = (
        wording.ago, wording.clock, wording.counted, wording.duration, wording.moment, wording.per_minute,
        wording.precise, wording.sentence, wording.summed, many, redacted, summarized,
    )  # fmt: skip
    filters: dict[str, Any] = made.filters
    filters |= {word.__name__: word for word in words}
    return made


def render(template: str, **facts: Any) -> str:
    """A page, or a part of one."""
    return environment().get_template(template).render(**facts)


def summarized(failure: Failure) -> str:
    """One line of a failure, without passwords."""
    return str(redacted(summary(failure)))
