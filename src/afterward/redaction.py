"""What of a job's data may be shown: values whose name looks secret are not."""

from __future__ import annotations

import json
import re
from typing import Any, cast

REDACTED = "[redacted]"

_WORDS = frozenset(
    ("auth", "authorization", "bearer", "cookie", "credential", "cvc", "cvv", "jwt", "key", "otp", "passphrase",
     "passwd", "password", "passcode", "pin", "pwd", "secret", "signature", "ssn", "token")
)  # fmt: skip
_PARTS = ("apikey", "authorization", "credential", "passphrase", "passwd", "password", "secret", "token")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_PASSWORD_IN_URL = re.compile(r"(://[^/\s:]*:)[^/\s]+(?=@)")


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
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {name: REDACTED if looks_secret(name) else redacted(inner) for name, inner in items}
    if isinstance(value, list):
        inner = cast("list[Any]", value)
        if len(inner) == 2 and isinstance(inner[0], str) and looks_secret(inner[0]):
            return [inner[0], REDACTED]  # a header, as (name, value)
        return [redacted(one) for one in inner]
    if isinstance(value, str):
        return _PASSWORD_IN_URL.sub(rf"\1{REDACTED}", value)
    return value
