"""Uploaded files among the arguments of a test's jobs: what is said of them, to compare and to show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from typing import Any, NamedTuple, cast

from starlette.datastructures import UploadFile

from afterward.job import Content
from afterward.sources import source_of

_BLOCK_BYTES = 64 * 1024


class Upload(NamedTuple):
    """What is known of a file that was uploaded; None of what is not."""

    filename: str | None
    content_type: str | None
    size: int | None
    digest: str | None

    def __repr__(self) -> str:
        said = {**self._asdict(), "digest": self.digest and self.digest[:8]}
        known = ", ".join(f"{name}={value!r}" for name, value in said.items() if value is not None)
        return f"UploadFile({known})"


class ExpectedUpload:
    """An `UploadFile` that a test expects: equal to a stored one that is as it says, as far as it says something."""

    def __init__(self, upload: UploadFile) -> None:
        try:
            size, digest = measure(_blocks(source_of(upload.file)))
        except Exception:  # noqa: BLE001 - whatever a file says that is closed, or is none
            self._upload = Upload(upload.filename, upload.content_type, upload.size, None)
        else:
            self._upload = Upload(upload.filename, upload.content_type, size, digest)

    def __eq__(self, stored: object) -> bool:
        if not isinstance(stored, Upload):
            return NotImplemented
        # Where the stored one has no name or type, it is known to have none.
        told = [(self._upload.filename, stored.filename), (self._upload.content_type, stored.content_type)]
        measured = [(self._upload.size, stored.size), (self._upload.digest, stored.digest)]
        return all(mine in (None, its) for mine, its in told) and all(
            None in (mine, its) or mine == its for mine, its in measured
        )

    __hash__ = None  # type: ignore[assignment] - it is equal to what has other hashes

    def __repr__(self) -> str:
        return repr(self._upload)


def measure(content: Iterable[bytes]) -> tuple[int, str]:
    """How many bytes these are, and what is the same for the same ones."""
    size, found = 0, sha256()
    for block in content:
        size += len(block)
        found.update(block)
    return size, found.hexdigest()


def with_files(value: Any, kind: type[Any], known: Callable[[Any], Any]) -> Any:
    """The same argument, with what is `known` of each file of this kind in its place."""
    if isinstance(value, kind):
        return known(value)
    if type(value) is list:
        return [with_files(each, kind, known) for each in cast("list[Any]", value)]
    if type(value) is tuple:  # those of a parameter like `*files`
        return tuple(with_files(each, kind, known) for each in cast("tuple[Any, ...]", value))
    return value


def _blocks(source: Content) -> Iterator[bytes]:
    offset = 0
    while block := source.read(offset, _BLOCK_BYTES):
        yield block
        offset += len(block)
