"""How OpenAPI describes a status document: by the task, with the model of what that returns."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import GetJsonSchemaHandler, create_model
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from afterward.document import JobStatus
from afterward.task import Task
from afterward.web.jobs import Jobs


class _AnyOfThese:
    """As metadata of an annotation: its JSON schema is that of the tasks that there are when somebody asks for it."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._models: dict[Task[..., Any], type[JobStatus[Any]] | None] = {}

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, json: GetJsonSchemaHandler) -> JsonSchemaValue:
        any_other = JobStatus[Any].__pydantic_core_schema__
        choices: dict[Any, CoreSchema] = {}
        for name, task in self._jobs.tasks.items():
            if task not in self._models:
                self._models[task] = _model_of(name, task)
            if (model := self._models[task]) is not None:
                choices[name] = model.__pydantic_core_schema__
        known = [core_schema.tagged_union_schema(choices, "task")] if choices else []
        return json(core_schema.union_schema([*known, any_other]))


def any_status(jobs: Jobs) -> Any:
    """The annotation of what shows one job: of a task known here that says what it returns, or of any other."""
    return Annotated[JobStatus[Any], _AnyOfThese(jobs)]


def _model_of(name: str, task: Task[..., Any]) -> type[JobStatus[Any]] | None:
    try:
        annotation = task.result.annotation
        if annotation in (Any, None, type(None)):
            return None
        create: Any = create_model
        model: type[JobStatus[Any]] = create(
            f"JobStatus[{task.__name__}]", __base__=JobStatus[annotation], task=(Literal[name], ...)
        )
        model.model_json_schema(mode="serialization")
    except Exception:  # noqa: BLE001 - whatever a user's type raises: such a result is shown as it is, and not described
        return None
    return model
