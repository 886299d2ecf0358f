"""What of a job's data may be shown: values whose name looks secret are not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, cast

REDACTED = "[redacted]"

_WORDS = frozenset(
    ("auth", "authorization", "bearer", "cookie", "credential", "cvc", "cvv", "jwt", "key", "otp", "passphrase",
     "passwd", "password", "passcode", "pin", "pwd", "secret", "signature", "ssn", "token")
)  # fmt: skip
_PARTS = ("apikey", "authorization", "credential", "passphrase", "passwd", "password", "secret", "token")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_PASSWORD_IN_URL = re.compile(r"(://[^/\s:]*:)([^/\s]+)(?=@)")
_NUMBERED = re.compile(r"\[redacted ([0-9]{1,6})\]")


def looks_secret(name: str) -> bool:
    """Does this name promise a password, a token, a key …?"""
    words = [word.lower() for word in _WORD.findall(name)]
    joined = "".join(words)
    return any(word.removesuffix("s") in _WORDS for word in words) or any(part in joined for part in _PARTS)


def shown(data: str | None) -> Any:
    """Stored JSON text as a value, without what looks secret."""
    if data is None:
        return None
    try:
        return redacted(json.loads(data))
    except (ValueError, RecursionError):
        return f"[{len(data):,} characters that cannot be shown]"


def redacted(value: Any) -> Any:
    """The same value, with `REDACTED` in place of what a secret-looking name leads to."""
    return _redacted(value, lambda _: REDACTED)


def hidden(value: Any) -> tuple[Any, Sequence[Any]]:
    """The same value with `[redacted 1]`, `[redacted 2]`, … in place of secrets; and those, in order."""
    secrets: list[Any] = []

    def hide(secret: Any) -> str:
        secrets.append(secret)
        return f"[redacted {len(secrets)}]"

    return _redacted(value, hide), secrets


def restored(value: Any, secrets: Sequence[Any]) -> Any:
    """A value as `hidden` gave it, edited or not, with the secrets in their places.

    Raises `Misplaced` for one that would be shown where it was put.
    """
    whole = _numbered(value, lambda number: _secret(secrets, number))
    if redacted(whole) != redacted(_numbered(value, lambda _: REDACTED)):
        raise Misplaced("a [redacted …] stands under a name that does not look secret, where it would be shown")
    return whole


class Misplaced(ValueError):
    """A secret cannot be put where its place is."""


def _redacted(value: Any, hide: Callable[[Any], str]) -> Any:
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {name: hide(inner) if looks_secret(name) else _redacted(inner, hide) for name, inner in items}
    if isinstance(value, list):
        inner = cast("list[Any]", value)
        if len(inner) == 2 and isinstance(inner[0], str) and looks_secret(inner[0]):
            return [inner[0], hide(inner[1])]  # a header, as (name, value)
        return [_redacted(one, hide) for one in inner]
    if isinstance(value, str):
        return _PASSWORD_IN_URL.sub(lambda found: found[1] + hide(found[2]), value)
    return value


def _numbered(value: Any, put: Callable[[int], Any]) -> Any:
    """The same value with what `put` gives for the number in place of each `[redacted 1]`, …"""
    if isinstance(value, dict):
        return {name: _numbered(inner, put) for name, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_numbered(inner, put) for inner in cast("list[Any]", value)]
    if isinstance(value, str):
        alone = _NUMBERED.fullmatch(value)
        return put(int(alone[1])) if alone else _NUMBERED.sub(lambda found: str(put(int(found[1]))), value)
    return value


def _secret(secrets: Sequence[Any], number: int) -> Any:
    if not 0 < number <= len(secrets):
        raise Misplaced(f"nothing was hidden as [redacted {number}]")
    return secrets[number - 1]
