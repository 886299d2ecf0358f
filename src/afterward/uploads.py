"""Uploaded files as arguments: what is stored of one with a job's arguments, and where its content is read from.

The name of a file is data: it is stored and given back as it came, and never names anything on a disk.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, fields
from types import GenericAlias, UnionType
from typing import Annotated, Any, BinaryIO, Union, cast, get_args, get_origin

from fastapi import UploadFile
from starlette.datastructures import Headers
from starlette.datastructures import UploadFile as StarletteUploadFile

from afterward.errors import FileTooLarge, FileUnreadable
from afterward.identity import new_id
from afterward.job import NewFile
from afterward.sources import source_of

DEFAULT_MAX_FILE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What stands in the arguments of a job in a file's place.

    `size`: as it was told; `headers`: of its part of the form. `exact`: the name as hexadecimal UTF-8, where it holds
    lone surrogates, which no store keeps; then `filename` is what people can read of it.
    """

    file: str
    filename: str | None
    size: int | None
    headers: tuple[tuple[str, str], ...]
    exact: str | None = None


_FIELDS = {field.name for field in fields(StoredFile)}


def as_stored(annotation: Any) -> Any:
    """The annotation of what is stored: `UploadFile`, `UploadFile | None`, `list[UploadFile]` name a `StoredFile`."""
    if isinstance(annotation, type) and issubclass(annotation, StarletteUploadFile):
        return StoredFile
    parts: tuple[Any, ...] = tuple(as_stored(part) for part in _parts(annotation))
    if parts == _parts(annotation):
        return cast("Any", annotation)
    if get_origin(annotation) is list:
        return GenericAlias(list, parts)
    return parts[0] if get_origin(annotation) is Annotated else Union[parts]  # noqa: UP007 - known when it runs


def is_for_files(annotation: Any) -> bool:
    """Does this annotation of what is stored have a place for a file?"""
    return annotation is StoredFile or any(is_for_files(part) for part in _parts(annotation))


def _parts(annotation: Any) -> tuple[Any, ...]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return get_args(annotation)[:1]  # what else it says is said of an `UploadFile`
    return get_args(annotation) if origin in {Union, UnionType, list} else ()


def take(value: Any, argument: str, max_bytes: int, files: list[NewFile]) -> Any:
    """The same value with a `StoredFile` in the place of each `UploadFile`, which is added to `files`.

    `argument` names it in errors. Raises `FileTooLarge`, `FileUnreadable`.
    """
    if isinstance(value, StarletteUploadFile):
        content = UploadedContent(value, argument, max_bytes)
        file = NewFile(new_id(), content)
        files.append(file)
        return _reference(file.id, value)
    if type(value) is list:
        return [take(each, argument, max_bytes, files) for each in cast("list[Any]", value)]
    return value


def _reference(id_: str, upload: StarletteUploadFile) -> StoredFile:
    readable = None if upload.filename is None else upload.filename.encode("utf-8", "backslashreplace").decode()
    exact = None if readable == upload.filename else (upload.filename or "").encode("utf-8", "surrogatepass").hex()
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in upload.headers.raw)
    return StoredFile(id_, readable, upload.size, headers, exact)


def stored_in(arguments: str) -> list[str]:
    """The ids of the files that arguments name, whatever function they are of."""
    values: list[Any] = list(json.loads(arguments).values())
    values += [each for value in values if isinstance(value, list) for each in cast("list[Any]", value)]
    return [value["file"] for value in values if isinstance(value, dict) and value.keys() == _FIELDS]


def give(stored: StoredFile, content: BinaryIO, size: int | None) -> UploadFile:
    """The file that was uploaded, with its content at hand."""
    name = stored.filename if stored.exact is None else bytes.fromhex(stored.exact).decode("utf-8", "surrogatepass")
    headers = Headers(raw=[(key.encode("latin-1"), value.encode("latin-1")) for key, value in stored.headers])
    return UploadFile(content, size=size, filename=name, headers=headers)


class UploadedContent:
    """What an `UploadFile` contains, up to the size that is allowed.

    Raises `FileTooLarge` or `FileUnreadable`, at once for one that is known not to be storable.
    """

    def __init__(self, upload: StarletteUploadFile, argument: str, max_bytes: int) -> None:
        self._argument = argument
        self._max_bytes = max_bytes
        if upload.size is not None:
            self._check_size(upload.size)
        try:
            if not upload.file.seekable():
                raise io.UnsupportedOperation("it is a stream, which cannot be read from its start")
            self._source = source_of(upload.file)
        except Exception as error:  # whatever the object says that was given as a file
            raise self._unreadable(error) from error

    def read(self, offset: int, size: int) -> bytes:
        """So many bytes from there, fewer only where it ends. It blocks; may be called from any thread."""
        try:
            data = self._source.read(offset, size)
        except Exception as error:  # as above
            raise self._unreadable(error) from error
        self._check_size(offset + len(data))
        return data

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise FileTooLarge(
                f"{self._argument} is a file of {size:,} bytes or more, and {self._max_bytes:,} are allowed; "
                f"refuse it before, or keep it elsewhere and pass where it is, or raise Afterward(max_file_bytes=…)"
            )

    def _unreadable(self, error: Exception) -> FileUnreadable:
        return FileUnreadable(
            f"{self._argument} is a file that cannot be stored ({type(error).__name__}: {error}); "
            f"give one that is open, in binary mode, and can be read from its start"
        )
