"""What tells failures of one cause from those of another."""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

_VARIES = "…"
_UNKNOWABLE = re.compile(
    r"""
      \b[a-z][a-z0-9+.-]{1,20}://\S+                          # a URL
    | [\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+                       # an address
    | (?<!\w)b?(?:'(?:[^'\\\n]|\\.)*(?:'(?!\w)|\Z)|"(?:[^"\\\n]|\\.)*(?:"|\Z))  # quoted, or its beginning
    | `[^`\n]*` | [\u2018\u201c\xab][^\u2019\u201d\xbb\n]{0,200}[\u2019\u201d\xbb]
    | (?:\b[a-z]:)?(?:[/\\][\w.~@+-]+){2,}[/\\]?             # a path
    | \b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b
    | \b0x[0-9a-f]+\b
    | \b[0-9a-f]{16,}\b                                     # a digest
    | \b(?=[^\W\d]*\d[^\W\d]*\d)\w{6,}\b                   # an id, or part of a digest
    | [+-]?\d+(?:[.,:_-]\d+)*(?:e[+-]?\d+)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_RUN = re.compile(r"…(?:[\s,:;=|/()\[\]{}<>.+-]*…)+")
_COMPREHENSIONS = re.compile(r"(?:\.<locals>)?\.<(?:listcomp|setcomp|dictcomp|genexpr)>")
_UNREADABLE = re.compile(r"[^A-Za-z0-9_.]+")
_LONGEST_MESSAGE = 1_000
_COMPARED = 300
_LONGEST_HEAD = 60

_INSTALLED = re.compile(r"[/\\](?:site|dist)-packages[/\\]([^/\\.]+)")
_STANDARD = tuple({f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib")})
_OURS = f"{Path(__file__).parent}{os.sep}"


class Place(NamedTuple):
    """Where something was under way: in which file, in which function (its qualified name)."""

    path: str
    function: str


def signature_of(kind: str, message: str, places: Iterable[Place] = (), task: str = "") -> str:
    """The same text for failures that are most likely of the same cause, in whatever process they happened.

    That is: the same kind, in the same function of the user's code, with a message that differs in nothing but numbers,
    quoted text, addresses and paths. `places`: as in a traceback, the innermost last. `task`: stands for them where
    none of them is the user's. It begins with words for people, and has nothing in it that a URL would have to quote.
    """
    place = _where(list(places)) or task
    told = "\0".join((kind, place, without_what_varies(message)))
    digest = blake2b(told.encode(errors="backslashreplace"), digest_size=6).hexdigest()
    words = [_last_word(kind), _last_word(place)]
    return "-".join([*filter(None, words), digest])


def without_what_varies(message: str) -> str:
    """What of a message is likely to be said again when the same thing goes wrong with something else."""
    text = _UNKNOWABLE.sub(_VARIES, message[:_LONGEST_MESSAGE])
    return " ".join(_RUN.sub(_VARIES, text).split())[:_COMPARED]


def _where(places: Sequence[Place]) -> str:
    """The innermost place in the user's code, by the end of its path: its beginning changes with deployments."""
    theirs = _own_package(places)
    for path, function in reversed(places):
        if _is_users(path, theirs):
            parts = [part for part in re.split(r"[/\\]", path) if part][-2:]
            tail = ".".join(without_what_varies(part) for part in parts).removesuffix(".py")
            return f"{tail}:{_COMPREHENSIONS.sub('', function)}"
    return ""


def _own_package(places: Sequence[Place]) -> str | None:
    """The installed package that the first function belongs to: an application can be installed as well."""
    first = next((path for path, _ in places if not _is_pythons(path)), "")
    found = _INSTALLED.search(first)
    return None if found is None else found[1]


def _is_users(path: str, own_package: str | None) -> bool:
    installed = _INSTALLED.search(path)
    if installed is not None:
        return installed[1] == own_package
    return not _is_pythons(path)


def _is_pythons(path: str) -> bool:
    """Is it of the standard library, made up while the program ran, or of this library?"""
    if path.startswith(("<", _OURS)):
        return True
    return _INSTALLED.search(path) is None and path.startswith(_STANDARD)


def _last_word(name: str) -> str:
    return _UNREADABLE.sub("", re.split(r"[.:]", name)[-1])[:_LONGEST_HEAD]
