"""What a form says."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from fastapi import Request

from afterward.web.dashboard.guard import Refused

LARGEST_FORM = 4 * 1024 * 1024
"""Bytes of a form that are read at most."""

_FIELDS = 50


async def form_of(request: Request) -> Mapping[str, str]:
    """The fields of a URL-encoded form; of one that is said twice, the last. Raises `Refused`."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise Refused("This is no form of ours", "Send application/x-www-form-urlencoded.", 415)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FORM:
            raise Refused("This is too much", f"A form may have {LARGEST_FORM:,} bytes.", 413)
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_FIELDS))
    except ValueError:
        raise Refused("This is no form of ours", "It cannot be read.", 400) from None
