"""What `add_task` and `enqueue` return: a way to the job, and to what comes of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Annotated, Any, Generic, Protocol, cast, get_args

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, PlainSerializer, PlainValidator
from pydantic.errors import PydanticSchemaGenerationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypeVar

from afterward.document import JobStatus
from afterward.errors import JobCancelled, JobFailed, JobUnknown
from afterward.job import Job, Status
from afterward.reasons import Reason
from afterward.result import ResultCodec

R_co = TypeVar("R_co", covariant=True, default=Any)


class Jobs(Protocol):
    """What a handle needs of the `Afterward` it belongs to."""

    async def get(self, job: str, /) -> Job | None: ...

    async def ended(self, jobs: Sequence[str], /, timeout: float | timedelta | None) -> list[Job | None]: ...

    async def why(self, job: str, /) -> list[Reason]: ...

    def run_sync(self, work: Any, /) -> Any: ...

    def answer_with(self, job: str, /) -> bool: ...


class JobHandle(Generic[R_co]):
    """One job: its id, good before the job is stored and ever after, and ways to look at it.

    Good in any process: `task.handle(id)` makes one from an id.
    """

    __slots__ = ("_codec", "_jobs", "id", "task")

    def __init__(self, id: str, task: str, jobs: Jobs, codec: ResultCodec) -> None:  # noqa: A002 - the name of what it is
        self.id = id
        self.task = task
        self._jobs = jobs
        self._codec = codec

    def __repr__(self) -> str:
        return f"<JobHandle {self.id} of {self.task}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobHandle) and self.id == cast("JobHandle[Any]", other).id

    def __hash__(self) -> int:
        return hash(self.id)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """What an endpoint returns by itself as `-> JobHandle[…]` becomes the status document of the job."""
        if handler.field_name is not None:
            raise PydanticSchemaGenerationError(
                f"the field {handler.field_name!r} is a JobHandle, and a handle is returned by itself, not as a part "
                f"of something else; let the field be a `str`, and give it `handle.id`"
            )
        shown = _ShownAs(JobStatus[(*get_args(source), Any)[0]])
        return handler.generate_schema(
            Annotated[Any, PlainValidator(_handle), PlainSerializer(_placeholder_of, return_type=str), shown]
        )

    def answer(self) -> bool:
        """If the calling code runs in a request, and its response is this id: let that become the status document."""
        return self._jobs.answer_with(self.id)

    async def job(self) -> Job | None:
        """The job as the store holds it now; None when it is unknown: not stored yet, or pruned since."""
        return await self._jobs.get(self.id)

    async def why(self) -> list[Reason]:
        """Why the job is not running, or not done, and what can be done about it: what matters most comes first."""
        return await self._jobs.why(self.id)

    async def result(self, *, timeout: float | timedelta | None = None) -> R_co:
        """Wait until the job has ended, in whatever process; what the task returned, as its annotation says.

        `timeout`: seconds, or a `timedelta`; None waits for as long as it takes. Raises `JobFailed` with the task's own
        error as text, `JobCancelled`, `JobUnknown`, and `ResultTimeout`, after which the job goes on. Do not wait in a
        request for what the same request has added: it is stored when the response starts.
        """
        [job] = await self._jobs.ended([self.id], timeout)
        return self.result_of(job)

    def result_sync(self, *, timeout: float | timedelta | None = None) -> R_co:
        """`result` for code without an event loop. It blocks."""
        return cast("R_co", self._jobs.run_sync(self.result(timeout=timeout)))

    def result_of(self, job: Job | None) -> R_co:
        """What this job, which has ended, returned; or raise what `result` raises."""
        if job is None:
            raise JobUnknown(
                f"the store knows no job {self.id} of task {self.task}: what a request adds is stored as its response "
                f"starts, and jobs that ended are pruned after a while"
            )
        if job.failure is not None and job.status is Status.failed:
            raise JobFailed(job.id, job.task, job.failure.kind, job.failure.message, job.failure.traceback)
        if job.status is not Status.succeeded:
            raise JobCancelled(f"job {job.id} of task {job.task} was cancelled: {job.note or 'no reason was given'}")
        return cast("R_co", self._codec.load(job.result))


class _ShownAs:
    """As metadata of an annotation: OpenAPI describes a model in its place."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, json: GetJsonSchemaHandler) -> JsonSchemaValue:
        # A union of one: by itself it would be written out in every place, in place of a reference to the model.
        return json(core_schema.union_schema([self._model.__pydantic_core_schema__]))


def _handle(value: Any) -> JobHandle[Any]:
    if not isinstance(value, JobHandle):
        raise ValueError(f"a JobHandle was to be returned, as add_task and enqueue give one, not a {type(value)}")
    return cast("JobHandle[Any]", value)


def _placeholder_of(handle: JobHandle[Any]) -> str:
    handle.answer()
    return handle.id


def ids_of(handles: Iterable[JobHandle[Any]]) -> list[str]:
    """The ids of several jobs, in order."""
    return [handle.id for handle in handles]
