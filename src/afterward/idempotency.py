"""`Idempotency-Key`: what makes two requests the same, and what is kept of the answer to the first.

Pure: no request is read here, and none is answered. The source of the rules is
https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message as Headers
from hashlib import sha256
from typing import Any

HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotency-Replayed"
MAX_KEY_CHARACTERS = 255
MAX_ANSWER_BYTES = 65_536
"""The body of an answer that is kept has no more."""

_NOT_KEPT = frozenset(
    {"connection", "content-length", "date", "keep-alive", "server", "set-cookie", "transfer-encoding"}
)
"""Headers of one connection, of one moment, or that hold what must not lie about."""


class KeyRefused(ValueError):
    """It is no key: the message says why, and what is one."""


def key_of(values: Sequence[str]) -> str | None:
    """The key that a request has, by the values of its headers; None where there is none.

    A structured string (RFC 8941 §3.3.3), in quotes, is the same key as its content without. Raises `KeyRefused`.
    """
    if not values:
        return None
    if len(values) > 1:
        raise KeyRefused(f"The request has {len(values)} {HEADER} headers; send one.")
    text = values[0].strip(" \t")
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = re.sub(r'\\(["\\])', r"\1", text[1:-1])
    if not 1 <= len(text) <= MAX_KEY_CHARACTERS or not all("!" <= character <= "~" for character in text):
        raise KeyRefused(
            f"The {HEADER} must have 1 to {MAX_KEY_CHARACTERS} visible ASCII characters; send a random UUID, for one."
        )
    return text


def scope_of(owner: str, method: str, path: str) -> str:
    """Within what a key means one request: whose it is, and for what. Of the same length, whatever the path's."""
    return sha256(json.dumps([owner, method, path]).encode()).hexdigest()


class Fingerprint:
    """The same for two requests exactly when they ask for the same: of method, path, query, type and content.

    The body is given as it comes in, in pieces of any size, and kept nowhere. The boundary of a multipart body does not
    count: who sends the same form again has another.
    """

    def __init__(self, method: str, path: str, query: bytes, content_type: str) -> None:
        kind = Headers()
        kind["content-type"] = content_type
        self._boundary = _boundary_of(kind)
        self._rest = b""
        of_what = [method, path, query.decode("latin-1"), kind.get_content_type() if self._boundary else content_type]
        self._hash = sha256(json.dumps(of_what).encode())

    def take(self, data: bytes) -> None:
        """The next piece of the body."""
        if not self._boundary:
            self._hash.update(data)
            return
        *parts, rest = (self._rest + data).split(self._boundary)
        self._hash.update(b"\0boundary\0".join([*parts, b""]))  # at once: a client can have a boundary at each byte
        safe = max(0, len(rest) - len(self._boundary) + 1)  # what follows may be a boundary that is not all here
        self._hash.update(rest[:safe])
        self._rest = rest[safe:]

    def text(self) -> str:
        """Of all that was taken."""
        whole = self._hash.copy()
        whole.update(self._rest)
        return whole.hexdigest()


def _boundary_of(kind: Headers) -> bytes:
    """Nothing where there is none, or none that can be made out: whoever reads such a body refuses it."""
    try:
        boundary = kind.get_boundary() if kind.get_content_maintype() == "multipart" else None
    except Exception:  # noqa: BLE001 - whatever the parser of the standard library stumbles over
        boundary = None
    return (boundary or "").encode("latin-1", "replace")


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What is kept of the answer to a request. `headers`: those that matter when it is given again.

    `is_document`: in place of its body, which is the id of a job, the status document of that is given. `owner`: whose
    that job was.
    """

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes
    is_document: bool = False
    owner: str | None = None

    @classmethod
    def of(cls, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> KeptAnswer:
        """Of an answer as ASGI has it."""
        texts = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]
        return cls(status, [each for each in texts if each[0] not in _NOT_KEPT], body)

    def written(self) -> str:
        """As text, for a store."""
        return json.dumps([self.status, self.headers, b64encode(self.body).decode(), self.is_document, self.owner])

    @classmethod
    def read(cls, text: str) -> KeptAnswer:
        """What `written` wrote; in a newer version with more after it."""
        status, headers, body, is_document, *more = json.loads(text)
        owner: str | None = more[0] if more else None
        return cls(status, [(name, value) for name, value in headers], b64decode(body), is_document, owner)


def answer_naming(jobs: Sequence[str]) -> KeptAnswer:
    """What is kept where jobs are committed before the answer to their request is known."""
    return KeptAnswer(202, [("content-type", "application/json")], json.dumps({"jobs": jobs}).encode())


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a request is refused, as RFC 9457 has it: `detail` names the mend."""

    status: int
    title: str
    detail: str
    retry_after: int | None = None

    def body(self) -> Mapping[str, Any]:
        return {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail}


MISSING = Problem(
    400, "Bad Request", f"This request needs an {HEADER} header; send a random UUID, and the same one with each retry."
)
IN_FLIGHT = Problem(
    409,
    "Conflict",
    f"A request with this {HEADER} is under way; send this one again, with the same key, when it is over.",
    1,
)
OTHER = Problem(
    422,
    "Unprocessable Content",
    f"This {HEADER} was used for a request with another query or body; send a new key with a new request.",
)
TOO_LARGE = Problem(
    413,
    "Content Too Large",
    f"A request with an {HEADER} is read before it is answered, and this one is too large for that; send less at once.",
)
UNAVAILABLE = Problem(503, "Service Unavailable", "The request could not be accepted now; try again later.", 5)


def bad_key(refused: KeyRefused) -> Problem:
    """A key that is none."""
    return Problem(400, "Bad Request", str(refused))
