"""What a client would like: the `Prefer` header (RFC 7240). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_PREFERENCE = re.compile(
    r"""\s*([\w!#$%&'*+.^`|~-]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^\s,;"]*))?\s*(?:;(?:[^,"]|"(?:[^"\\]|\\.)*")*)?(?:,|$)"""
)
"""One of them, with its value; and its parameters, of which ours have none."""

_LONGEST = 1000
"""What a client says beyond so many characters is not read."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """`respond_async`: it need not wait for the end. `wait`: seconds for which it waits; None if it does not say."""

    respond_async: bool = False
    wait: int | None = None


def preferences_in(headers: Iterable[tuple[bytes, bytes]]) -> Preferences:
    """Those of a request. What is said twice counts as it is said first, and what cannot be read is not said."""
    text = ",".join(value.decode("latin-1") for name, value in headers if name.lower() == b"prefer")[:_LONGEST]
    said: dict[str, str] = {}
    for name, value in _PREFERENCE.findall(text):
        said.setdefault(name.lower(), value.strip('"'))
    wait = said.get("wait", "")
    return Preferences("respond-async" in said, int(wait) if re.fullmatch(r"[0-9]{1,9}", wait) else None)
