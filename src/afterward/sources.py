"""Where the content of an uploaded file is read from when it is stored: later than it was given, and closed by then."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from tempfile import SpooledTemporaryFile
from typing import Any, cast
from weakref import WeakKeyDictionary, ref

from afterward.job import Content

_ON_DISK = (io.BufferedRandom, io.BufferedReader, io.FileIO)
_SHARED: WeakKeyDictionary[Any, ref[Content]] = WeakKeyDictionary()
_SHARING = threading.Lock()


def source_of(file: Any) -> Content:
    """What this file contains, from its start, wherever it is read from: its position stays as it was.

    Of a file in memory or on a disk, it can be read though the file is closed meanwhile: FastAPI closes those of a
    request that ends in an exception before a response to that exception starts.
    """
    is_spooled = isinstance(file, SpooledTemporaryFile)
    inside: Any = getattr(cast("Any", file), "_file", None) if is_spooled else file
    if type(inside) is io.BytesIO:
        return _InMemory(inside.getvalue())
    if type(inside) in _ON_DISK and hasattr(os, "pread"):  # not all that has a `fileno`: a GzipFile's leads elsewhere
        inside.flush()
        return _shared(inside, _OnDisk)
    return _shared(file, _Behind)


def _shared(file: Any, kind: Callable[[Any], Content]) -> Content:
    """One for all that take the same file."""
    with _SHARING:
        known = _SHARED.get(file)
        source = None if known is None else known()
        if source is None:
            source = kind(file)
            _SHARED[file] = ref(source)
        return source


class _InMemory:
    """Bytes that are in memory anyway: they are shared with the file, not copied."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]


class _OnDisk:
    """A descriptor of our own; it is closed when nobody wants to read any more."""

    def __init__(self, file: Any) -> None:
        self._descriptor = os.dup(file.fileno())

    def read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, offset)
        while len(data) < size and (more := os.pread(self._descriptor, size - len(data), offset + len(data))):
            data += more
        return data

    def __del__(self) -> None:
        os.close(self._descriptor)


class _Behind:
    """Whatever else reads like a file: one at a time, for each read moves its position, and moves it back."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._lock = threading.Lock()

    def read(self, offset: int, size: int) -> bytes:
        parts: list[bytes] = []
        with self._lock:
            before = self._file.tell()
            try:
                self._file.seek(offset)
                while size > 0 and (part := self._file.read(size)):
                    parts.append(part if type(part) is bytes else memoryview(part).tobytes())
                    size -= len(part)
            finally:
                self._file.seek(before)
        return b"".join(parts)
