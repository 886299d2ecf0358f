"""Which jobs were enqueued by which calls, and how to say it when it was another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from io import BytesIO
from typing import Any, NamedTuple

from starlette.datastructures import UploadFile

from afterward.errors import ArgumentsDoNotFit
from afterward.job import Job, NewJob
from afterward.options import CallOptions
from afterward.task import Task
from afterward.testing.files import ExpectedUpload, Upload, with_files
from afterward.uploads import StoredFile, give

_OPTIONS = [option.name for option in fields(CallOptions) if option.name in NewJob._fields]


class Enqueued(NamedTuple):
    """A job as it is stored, as it was enqueued (None: by the store itself), and its task.

    `contents`: of the files in the store, by their ids, how large they are and what their digest is.
    """

    job: Job
    new: NewJob | None
    task: Task[..., Any]
    contents: Mapping[str, tuple[int, str]]

    def option(self, name: str) -> Any:
        """What was said of this call."""
        return getattr(self.job if self.new is None else self.new, name, None)

    def arguments(self) -> dict[str, Any]:
        """The arguments as the task gets them: what was stored, read back. Raises `ArgumentsDoNotFit`."""
        codec = self.task.arguments
        given = codec.bound(*codec.load(self.job.arguments))
        return {name: with_files(value, StoredFile, self._upload) for name, value in given.items()}

    def text(self) -> str:
        """One line for who reads why a test failed."""
        options = {name: self.option(name) for name in _OPTIONS}
        said = [f"{name}={value!r}" for name, value in options.items() if value != getattr(CallOptions(), name)]
        try:
            call = ", ".join(f"{name}={value!r}" for name, value in self.arguments().items())
        except ArgumentsDoNotFit:
            call = self.job.arguments
        name = self.task.name.rpartition(":")[2]
        return f"{name}({call})  {', '.join([*said, self.job.status.value])}"

    def _upload(self, stored: StoredFile) -> Upload:
        size, digest = self.contents.get(stored.file, (stored.size, None))
        given = give(stored, BytesIO(), size)
        return Upload(given.filename, given.content_type, size, digest)


class Expected:
    """A call of a task, with the options that its copy says otherwise than the task as it was declared."""

    def __init__(
        self, declared: Task[..., Any], task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._name = task.name
        self._options = {
            name: value
            for name in _OPTIONS
            if (value := getattr(task.call_options, name)) != getattr(declared.call_options, name)
        }
        args = tuple(with_files(value, UploadFile, ExpectedUpload) for value in args)
        kwargs = {name: with_files(value, UploadFile, ExpectedUpload) for name, value in kwargs.items()}
        self._arguments = task.arguments.bound(args, kwargs) if args or kwargs else None
        call = (
            "…"
            if self._arguments is None
            else ", ".join([*(repr(value) for value in args), *(f"{name}={value!r}" for name, value in kwargs.items())])
        )
        said = "".join(f", {name}={value!r}" for name, value in self._options.items())
        self.text = f"{task.name.rpartition(':')[2]}({call}){said}"

    def matches(self, enqueued: Enqueued) -> bool:
        """Is it this call, as far as it says?"""
        if enqueued.task.name != self._name:
            return False
        if any(enqueued.option(name) != value for name, value in self._options.items()):
            return False
        try:
            return self._arguments is None or enqueued.arguments() == self._arguments
        except ArgumentsDoNotFit:
            return False


def listing(enqueued: Sequence[Enqueued]) -> str:
    """All of them, each on a line."""
    return "".join(f"\n    {one.text()}" for one in enqueued) or " nothing"
