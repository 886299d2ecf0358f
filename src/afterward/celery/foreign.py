"""Existing Celery tasks, whose code knows nothing of the store: their jobs are published, and then followed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, cast

from celery.utils.time import maybe_make_aware

from afterward.arguments import ArgumentCodec
from afterward.celery.app import begins_with_smallest
from afterward.celery.backend import silence_of
from afterward.celery.called import Called, CalledArguments, Signed, dump, load, signed, steps_of
from afterward.celery.lines import line_of
from afterward.celery.messages import Message, task_id_of
from afterward.celery.published import DEFAULT_QUEUE, urgency
from afterward.errors import ArgumentError, ConfigurationError, TaskError
from afterward.executors import FOREIGN
from afterward.foreign import is_celery_task, is_signature
from afterward.identity import new_id
from afterward.job import Lease, NewEvent, NewJob, Report, Succeeded
from afterward.options import CallOptions, checked, seconds
from afterward.result import ResultCodec
from afterward.task import Owner, Task, TaskOptions
from afterward.text import is_storable

_BUILT_IN = "celery."
"""Of these names are the tasks of Celery itself, which nobody adds by themselves."""

_aware: Any = maybe_make_aware


class CeleryTask(Task[..., Any]):
    """A task of a Celery fleet. What is added to it is stored, published, and followed to its end.

    Made by `Afterward.celery_task`, never by hand. `republish_after`: seconds after which a message of which nothing
    was heard is published once more.
    """

    def __init__(self, owner: Owner, app: Any, name: str, republish_after: float | None, max_bytes: int) -> None:
        self.owner = owner
        self.app = app
        self.__name__ = self.celery_name = name
        self.name = self.name_in_code = FOREIGN + name
        self.republish_after = republish_after
        self.is_async = False
        self.items = None
        self.has_hooks = False
        self.task_options = TaskOptions()
        self.call_options = checked(CallOptions(), self.name)
        self.max_bytes = max_bytes
        self.result = ResultCodec(_anything, self.name, max_bytes)
        self._executor = "celery"
        self._memory = None
        self._signature = Signed(name, Called(), is_immutable=False)

    @cached_property
    def arguments(self) -> ArgumentCodec:
        """Checked by Celery, and stored as it has them: here they are only read, by those who look."""
        task = self.app.tasks.get(self.celery_name)
        return CalledArguments(_anything if task is None else task.run, self.name)

    def with_signature(self, signature: Any) -> CeleryTask:
        """A copy of it, of which a call is this signature."""
        copy: CeleryTask = object.__new__(CeleryTask)
        copy.__dict__.update(self.__dict__)
        copy._signature = signed(signature)
        return copy

    def __call__(self, /, *_args: Any, **_kwargs: Any) -> Any:
        raise TaskError(f"task {self.name} is run by a Celery fleet alone; add it, or `await ….enqueue(…)`")

    def new_job(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, limited: bool = True, origin: str | None = None
    ) -> NewJob:
        options = self.call_options
        called = self._called(args, kwargs)
        self._check(called)
        times = _times_in(called.options, self.app)
        said = {name: value for name, value in called.options.items() if name not in _IN_THE_JOB}
        if options.queue != DEFAULT_QUEUE:
            said.pop("queue", None)
        queue = _queue_in(said) or options.queue
        if (expires := called.options.get("expires", self._said("expires"))) is not None:
            said["expires"] = _moment(expires, self.app)
            times["expires"] = seconds(expires) if isinstance(expires, int | float) else said["expires"]
        options = checked(_with(options, times, queue), self.name)
        text = dump(called._replace(options=said), self.name)
        if limited and len(text) > self.max_bytes:
            raise ArgumentError(
                f"task {self.name}: its arguments take {len(text):,} bytes, more than the {self.max_bytes:,} "
                f"allowed; keep the data elsewhere and pass where it is, or raise Afterward(max_payload_bytes=…)"
            )
        return NewJob(
            new_id(),
            self.name,
            options.queue,
            options.priority,
            text,
            None,
            options.delay,
            options.run_at,
            options.unique,
            options.on_duplicate,
            options.expires,
            None,
            options.timeout,
            (),
            options.owner,
            origin,
        )

    def _called(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Called:
        """As `Signature.apply_async` merges what it is given."""
        called = self._signature.called
        if self._signature.is_immutable:
            return called
        return called._replace(args=(*args, *called.args), kwargs={**called.kwargs, **kwargs})

    def _check(self, called: Called) -> None:
        if self.call_options.max_attempts is not None:
            raise TaskError(f"task {self.name}: max_attempts= is the Celery task's own to say, as max_retries=")
        if "task_id" in called.options:
            raise TaskError(
                f"task {self.name}: its id in Celery is made of the job's; for one job at a time give "
                f"options(unique=…), and leave out task_id="
            )
        task = self.app.tasks.get(self.celery_name)
        if task is None or not task.typing:
            return
        try:
            task.__header__(*called.args, **called.kwargs)
        except TypeError as error:
            raise ArgumentError(f"task {self.name}: {error}") from None

    def _said(self, name: str) -> Any:
        """What is said of the task where it is declared."""
        return getattr(self.app.tasks.get(self.celery_name), name, None)


def _anything(*_args: Any, **_kwargs: Any) -> Any:
    """What a Celery task takes and returns, as far as is known here."""


_IN_THE_JOB = frozenset({"countdown", "eta", "expires", "producer", "connection", "publisher", "retry", "retry_policy"})
"""Options that are not published as they were given: what they say of time stands in the job."""


def _times_in(options: Mapping[str, Any], app: Any) -> dict[str, Any]:
    """When it is due, by what it says itself: the store keeps it until then."""
    if options.get("countdown"):
        return {"delay": max(0.0, float(options["countdown"]))}
    return {} if options.get("eta") is None else {"run_at": _moment(options["eta"], app)}


def _moment(when: Any, app: Any) -> datetime:
    """A point in time, which Celery lets be said as one, without a time zone, or as seconds from now."""
    if isinstance(when, datetime):
        return cast("datetime", _aware(when, app.timezone))
    if isinstance(when, str):
        return cast("datetime", _aware(datetime.fromisoformat(when), app.timezone))
    return datetime.now(UTC) + timedelta(seconds=seconds(when))


def _queue_in(options: Mapping[str, Any]) -> str | None:
    queue = options.get("queue")
    return queue if isinstance(queue, str) and is_storable(queue) and 0 < len(queue) <= 100 else None


def _with(options: CallOptions, times: dict[str, Any], queue: str) -> CallOptions:
    """What was said of the call: by its signature where `options()` has said nothing."""
    if options.delay is not None or options.run_at is not None:
        times = {"expires": times.get("expires")}
    if options.expires is not None:
        times = {**times, "expires": options.expires}
    return replace(options, queue=queue, **times)


class Foreign:
    """The jobs of one task of a fleet, as they are published."""

    is_followed = True
    fingerprint = ""

    def __init__(self, app: Any, name: str, republish_after: float | None) -> None:
        self._app = app
        self._name = name
        self.republish_after = republish_after

    @property
    def republishes(self) -> bool:
        return self.republish_after is not None

    def message(self, lease: Lease) -> Message:
        called = load(lease.arguments)
        options = dict(called.options)
        if lease.queue != DEFAULT_QUEUE:
            options.setdefault("queue", lease.queue)
        if lease.priority:
            options.setdefault("priority", urgency(lease.priority, smaller_first=begins_with_smallest(self._app)))
        if lease.timeout is not None:
            options.setdefault("time_limit", lease.timeout)
        task_id = task_id_of(lease.id, lease.attempt)
        if called.then:
            ids = [step_id(task_id, number) for number in range(2, len(called.then) + 1)] + [task_id]
            steps = [_with_id(step, id_) for step, id_ in zip(called.then, ids, strict=True)]
            options["chain"] = steps[::-1]
            task_id = step_id(task_id, 1)
        return Message(self._name, list(called.args), dict(called.kwargs), task_id, options)

    def end(self, lease: Lease) -> Succeeded | None:
        why = self._silence(lease)
        if why is None:
            return None
        line = line_of("INFO", f"Celery's broker has confirmed it, and that is the last that is heard of it: {why}")
        return Succeeded(report=Report(1, tuple(event for event in (self.line(lease), line) if event is not None)))

    def line(self, lease: Lease) -> NewEvent | None:
        if lease.attempt == 1:
            return None
        return line_of(
            "WARNING",
            f"it is published as attempt {lease.attempt}, with the id {task_id_of(lease.id, lease.attempt)} in Celery; "
            f"if an attempt before was published, it may run too",
        )

    def _silence(self, lease: Lease) -> str | None:
        """Why nothing will be heard of it; None where something will."""
        why = silence_of(self._app)
        if why is not None:
            return why
        called = load(lease.arguments)
        last: Mapping[str, Any] = called.then[-1] if called.then else {"task": self._name, "options": called.options}
        task = self._app.tasks.get(last["task"])
        ignores = last["options"].get("ignore_result")
        if ignores is None:
            ignores = task is not None and task.ignore_result
        return f"{last['task']} ignores its result" if ignores else None


def step_id(last: str, number: int) -> str:
    """The id of a task in a chain, but for the last, which has that of the job's attempt."""
    return f"{last}.{number}"


def _with_id(step: Mapping[str, Any], task_id: str) -> dict[str, Any]:
    return {**step, "options": {**step["options"], "task_id": task_id}}


class ForeignTasks:
    """The tasks of a Celery app that are handed over: those that were declared here, and those that the app knows."""

    def __init__(self, owner: Owner, app: Any, *, max_bytes: int) -> None:
        self._owner = owner
        self._app = app
        self._max_bytes = max_bytes
        self._declared: dict[str, float | None] = {}
        self._made: dict[str, Foreign] = {}
        self._size = 0, 0, 0

    def declare(self, thing: Any, republish_after: float | None) -> CeleryTask:
        """A task of the app, or the name of one that only the code of the fleet has. Of a signature nothing is said."""
        if is_signature(thing) and republish_after is None:
            return self.task_for(thing)
        if not isinstance(thing, str) and not is_celery_task(thing):
            raise TaskError(f"tasks.celery_task takes a Celery task, or the name of one, not {thing!r:.100}")
        self._check_app(thing)
        name = thing if isinstance(thing, str) else str(thing.name)
        self._declared[name] = republish_after
        self._size = 0, 0, 0
        return self._task(name)

    def task_for(self, thing: Any) -> CeleryTask:
        """A task of the app, or a signature of one, as what can be added. Raises `ConfigurationError`."""
        self._check_app(thing)
        name = signed(thing).task if is_signature(thing) else str(thing.name)
        task = self.named(name)
        if task is None:
            raise ConfigurationError(
                f"the Celery task {name!r} is not known here: import the module that has it, or declare it, where the "
                f'processes that publish it do, too: tasks.celery_task("{name}")'
            )
        return task.with_signature(thing) if is_signature(thing) else task

    def named(self, name: str) -> CeleryTask | None:
        """The task of this name in Celery, where it is known here."""
        return self._task(name) if name in self._declared or name in self._app.tasks else None

    def published(self, own: Mapping[str, Any]) -> Mapping[str, Foreign]:
        """What is published, by the names under which it is stored; but for what is `own` to the owner."""
        size = len(self._app.tasks), len(self._declared), len(own)
        if size != self._size:
            known = [name for name in list(self._app.tasks) if not name.startswith(_BUILT_IN) and name not in own]
            self._made = {FOREIGN + name: self._make(name) for name in {*known, *self._declared}}
            self._size = size
        return self._made

    def _make(self, name: str) -> Foreign:
        return Foreign(self._app, name, self._declared.get(name))

    def prepare(self) -> None:
        """Make what Celery makes late: else the first request would wait for it."""
        self._app.finalize(auto=True)

    def _task(self, name: str) -> CeleryTask:
        return CeleryTask(self._owner, self._app, name, self._declared.get(name), self._max_bytes)

    def _check_app(self, thing: Any) -> None:
        if not isinstance(thing, str) and thing.app is not self._app and not self._has_too(thing):
            raise ConfigurationError(
                f"{thing!r:.100} is of the Celery app {thing.app.main!r}, and Afterward(celery=…) was given another; "
                f"give it that app, or name the task there: tasks.celery_task(…)"
            )

    def _has_too(self, thing: Any) -> bool:
        """Is it a task of every app, by `shared_task`? Of which one it says it is depends on the thread that asks."""
        if is_signature(thing):
            return all(self._shares(thing.app, str(step.task)) for step in steps_of(thing))
        return self._shares(thing.app, str(thing.name))

    def _shares(self, other: Any, name: str) -> bool:
        ours, theirs = self._app.tasks.get(name), other.tasks.get(name)
        return ours is not None and theirs is not None and _function(ours) is _function(theirs)


def _function(task: Any) -> Any:
    """What a Celery task was made of; with `bind=True` it is one of its methods."""
    return getattr(task.__wrapped__, "__func__", task.__wrapped__)
