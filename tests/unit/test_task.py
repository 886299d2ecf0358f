"""A task: its declaration, its options, and calls of it."""

import functools
import inspect
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from afterward import Afterward, ArgumentError, Task, TaskError
from afterward.job import NewJob
from afterward.naming import name_of
from afterward.options import seconds
from afterward.task import is_async


@pytest.fixture
def tasks(tmp_path: Path) -> Afterward:
    """Nothing is opened before it is needed: declaring and preparing need no store."""
    return Afterward(f"sqlite:///{tmp_path}/jobs.db")


def send(address: str, *, text: str = "") -> str:
    """Send it."""
    return f"{address}: {text}"


def prepared(task: Task[..., Any], *args: Any, **kwargs: Any) -> NewJob:
    return task.prepare(*args, **kwargs)


# Declaring.


def test_called_directly_a_task_just_calls_its_function(tasks: Afterward) -> None:
    task = tasks.task(send)
    assert task("a@example.com", text="hello") == "a@example.com: hello"


def test_a_task_looks_like_its_function(tasks: Afterward) -> None:
    task = tasks.task(send)
    assert (task.__name__, task.__doc__, task.__module__) == ("send", "Send it.", __name__)
    assert inspect.signature(task) == inspect.signature(send)
    assert repr(task) == f"<Task {__name__}:send>"


@pytest.mark.parametrize("name", [name for name in dir(Task) if not name.startswith("__")])
def test_what_a_task_can_do_does_not_depend_on_attributes_of_its_function(tasks: Afterward, name: str) -> None:
    """A function may have any, of another decorator; they are the task's where it has none of that name."""

    def noted(address: str) -> str:
        return address

    vars(noted).update({name: "not ours", "mark": "theirs"})
    task = tasks.task(noted)
    assert name not in vars(task) or vars(task)[name] != "not ours"
    assert getattr(task, name) != "not ours"
    assert vars(task)["mark"] == "theirs"
    assert vars(task)["__wrapped__"] is noted
    assert task.options(delay=1).prepare("a").delay == 1


def test_a_task_is_stored_under_module_and_name(tasks: Afterward) -> None:
    assert tasks.task(send).name == f"{__name__}:send"
    assert tasks.task(name="mail.send")(send).name == "mail.send"


def test_a_task_of_an_async_function_is_one(tasks: Afterward) -> None:
    """Frameworks that look see a coroutine function; others are none."""

    async def wait(n: int) -> int:
        return n

    assert inspect.iscoroutinefunction(type(tasks.task(wait)).__call__)
    assert not inspect.iscoroutinefunction(type(tasks.task(send)).__call__)


def test_is_async_looks_through_partials_and_at_callable_objects() -> None:
    async def wait(n: int = 0) -> int:
        return n

    class Async:
        async def __call__(self) -> None: ...

    class Sync:
        def __call__(self) -> None: ...

    assert [
        is_async(function)
        for function in (wait, functools.partial(wait, 1), functools.partial(functools.partial(wait)))
    ] == [True] * 3
    assert [is_async(function) for function in (Async(), functools.partial(Async()))] == [True] * 2
    assert [is_async(function) for function in (send, Sync(), functools.partial(send), print)] == [False] * 4


@pytest.mark.parametrize(
    "function",
    [lambda: None, functools.partial(send, "x"), max, 5, None],
    ids=["lambda", "partial", "no signature", "number", "None"],
)
def test_what_cannot_be_a_task_is_refused_when_it_is_declared(tasks: Afterward, function: Any) -> None:
    with pytest.raises(TaskError):
        tasks.task()(function)
    assert tasks.tasks == {}


def test_a_task_is_not_declared_twice(tasks: Afterward) -> None:
    with pytest.raises(TaskError, match="declared twice"):
        tasks.task(tasks.task(send))


def test_two_functions_do_not_share_a_name(tasks: Afterward) -> None:
    """But a module that is loaded again declares the same functions again."""
    tasks.task(send)
    tasks.task(send)

    def other() -> None: ...

    with pytest.raises(TaskError, match=r"two functions.*another name"):
        tasks.task(name=f"{__name__}:send")(other)


def loud(function: Callable[..., str]) -> Callable[..., str]:
    """A decorator, as users write them."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> str:
        return function(*args).upper()

    return wrapper


def test_functions_are_told_apart_below_their_decorators(tasks: Afterward) -> None:
    """What a decorator makes of them has one place: the decorator's."""
    declare = tasks.task(name="greet")
    for _ in range(2):

        @declare
        @loud
        def greet(name: str) -> str:
            return f"hello {name}"

    with pytest.raises(TaskError, match=r"two functions.*another name"):

        @declare
        @loud
        def part(name: str) -> str:
            return f"good bye {name}"


class Shop:
    """Something with methods, of which there may be two."""

    def __init__(self, name: str) -> None:
        self.name = name

    def sell(self, what: str) -> str:
        return f"{self.name} sells {what}"

    @loud
    def shout(self, what: str) -> str:
        return self.sell(what)

    @classmethod
    def open(cls) -> str:
        return cls.__name__


class Bakery(Shop):
    """Another, with the same methods."""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Shop("A").sell, Shop("B").sell),
        (Shop("A").shout, Shop("B").shout),
        (Shop("A").sell, Bakery("A").sell),
        (Shop.open, Bakery.open),
        (Shop.sell, Shop("A").sell),
    ],
    ids=["objects", "decorated", "objects of two classes", "classes", "function and method"],
)
def test_one_method_of_two_objects_is_two_tasks(tasks: Afterward, one: Any, other: Any) -> None:
    """A job keeps the name of its task, and not which object was meant."""
    first = tasks.task(one)
    with pytest.raises(TaskError, match=r"two objects.*name="):
        tasks.task(other)
    assert tasks.tasks == {first.name: first}
    assert tasks.task(name="other")(other).name == "other"
    tasks.task(one)


def test_a_class_that_is_loaded_again_has_its_methods_declared_again(tasks: Afterward) -> None:
    """As `importlib.reload` does it: its objects are others, and so is it."""
    source = "class Shop:\n    def sell(self): ...\n    @classmethod\n    def open(cls): ...\n"
    for _ in range(2):
        module: dict[str, Any] = {"__name__": "shop"}
        exec(source, module)
        tasks.task(module["Shop"]().sell)
        tasks.task(module["Shop"].open)
    assert tasks.tasks.keys() == {"shop:Shop.sell", "shop:Shop.open"}


class Incomparable:
    """As arrays are, that compare item by item."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("values", "warnings"),
    [
        (["one", "two"], 1),
        ([["equal"], ["equal"]], 0),
        ([{"url": 1}, {"url": 2}, {"url": 2}], 1),
        ([Incomparable(), Incomparable()], 1),
    ],
    ids=["texts", "equal", "dicts", "incomparable"],
)
def test_a_factory_that_declares_a_task_again_with_other_values_is_told_of(
    tasks: Afterward, caplog: pytest.LogCaptureFixture, values: list[Any], warnings: int
) -> None:
    """Jobs of both run the newest. That is not refused, for a factory of apps may want it."""

    def make(value: Any) -> Task[[], Any]:
        @tasks.task
        def tell() -> Any:
            return value

        return tell

    made = [make(value) for value in values]
    told = [record.message for record in caplog.records if record.message.startswith("task.replaced")]
    assert len(told) == warnings
    assert all(f"task={made[0].name}" in message and "name=…" in message for message in told)
    assert tasks.tasks == {made[0].name: made[-1]}


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"max_attempts": -1},
        {"timeout": -1},
        {"timeout": 0},
        {"timeout": timedelta(0)},
        {"timeout": float("nan")},
        {"backoff": -0.1},
        {"max_backoff": float("inf")},
        {"queue": ""},
        {"queue": "x" * 101},
        {"queue": "a\0b"},
        {"queue": "\ud800"},
        {"priority": 2**31},
        {"priority": -(2**31) - 1},
        {"name": "\ud800"},
        {"name": "a\0b"},
    ],
    ids=str,
)
def test_an_option_that_makes_no_sense_is_refused_when_it_is_declared(
    tasks: Afterward, options: dict[str, Any]
) -> None:
    with pytest.raises(TaskError):
        tasks.task(**options)(send)
    assert tasks.tasks == {}


# Spans of time.


@pytest.mark.parametrize(("span", "value"), [(0, 0), (1.5, 1.5), (timedelta(minutes=1), 60), (timedelta(0), 0)])
def test_a_span_is_a_timedelta_or_seconds(span: Any, value: float) -> None:
    assert seconds(span) == value


@pytest.mark.parametrize(
    "span",
    [-1, -0.001, float("nan"), float("inf"), 1e10, timedelta(seconds=-1), timedelta.max, "soon", None, [], 10**400],
)
def test_what_is_no_span_is_refused(span: Any) -> None:
    with pytest.raises(TaskError):
        seconds(span)


# Options of one call.


def test_options_say_something_of_a_call_and_leave_the_task_as_it_is(tasks: Afterward) -> None:
    task = tasks.task(queue="mail", priority=3)(send)
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    job = prepared(task.options(delay=timedelta(minutes=1), queue="slow", priority=-5, unique="k"), "a")
    assert (job.task, job.delay, job.run_at, job.queue, job.priority, job.unique) == (
        task.name,
        60,
        None,
        "slow",
        -5,
        "k",
    )
    assert prepared(task.options(run_at=moment), "a").run_at == moment
    plain = prepared(task, "a")
    assert (plain.delay, plain.run_at, plain.queue, plain.priority, plain.unique) == (None, None, "mail", 3, None)


def test_options_add_to_earlier_options(tasks: Afterward) -> None:
    job = prepared(tasks.task(send).options(queue="slow", priority=1).options(priority=0, delay=0), "a")
    assert (job.queue, job.priority, job.delay) == ("slow", 0, 0)


def test_a_copy_with_options_is_the_same_task(tasks: Afterward) -> None:
    task = tasks.task(send)
    copy = task.options(delay=1)
    assert (copy.name, copy.function, type(copy)) == (task.name, task.function, type(task))
    assert copy("a") == task("a")
    assert tasks.tasks == {task.name: task}


def test_delay_and_run_at_exclude_each_other(tasks: Afterward) -> None:
    with pytest.raises(TaskError, match="exclude each other"):
        tasks.task(send).options(delay=1, run_at=datetime.now(UTC))


def test_of_delay_and_run_at_the_one_said_last_counts(tasks: Afterward) -> None:
    """A job never has both: they exclude each other."""
    task, moment = tasks.task(send), datetime(2030, 1, 1, tzinfo=UTC)
    for copy, wanted in (
        (task.options(run_at=moment).options(delay=5), (5, None)),
        (task.options(delay=5).options(run_at=moment), (None, moment)),
    ):
        job = prepared(copy, "a")
        assert (job.delay, job.run_at) == wanted


def test_run_at_needs_a_zone(tasks: Afterward) -> None:
    with pytest.raises(TaskError, match="no time zone"):
        tasks.task(send).options(run_at=datetime(2030, 1, 1))  # noqa: DTZ001 - as users do


@pytest.mark.parametrize(
    "options",
    [
        {"delay": -1},
        {"delay": float("nan")},
        {"timeout": 0},
        {"expires": 0},
        {"queue": ""},
        {"queue": "\udcff"},
        {"priority": 2**31},
        {"priority": 1.5},
        {"unique": ""},
        {"unique": "x" * 501},
        {"unique": "a\0"},
        {"unique": "\ud800"},
    ],
    ids=str,
)
def test_an_option_that_could_not_be_stored_is_refused_at_the_call(tasks: Afterward, options: dict[str, Any]) -> None:
    with pytest.raises(TaskError, match=r"send|span"):
        tasks.task(send).options(**options)


def test_a_task_may_be_tried_again_at_once(tasks: Afterward) -> None:
    """A pause of no time is one; a limit of no time is none."""
    assert tasks.task(backoff=0, max_backoff=0)(send).task_options.retry.backoff == 0
    with pytest.raises(TaskError, match="timeout=0 would end every attempt as it begins; give more, or None"):
        tasks.task(timeout=0)(send)


@pytest.mark.parametrize(
    "options", [{"queue": "ü" * 100}, {"unique": "x" * 500}, {"priority": -(2**31)}, {"delay": 0}], ids=str
)
def test_options_may_go_to_their_limits(tasks: Afterward, options: dict[str, Any]) -> None:
    prepared(tasks.task(send).options(**options), "a")


# The keywords of a function are its own.

NAMES = [
    "self",
    "func",
    "function",
    "task",
    "tasks",
    "args",
    "kwargs",
    "name",
    "delay",
    "run_at",
    "queue",
    "priority",
    "unique",
    "run_on_error",
    "options",
    "owner",
    "arguments",
    "job",
    "jobs",
    "id",
    "context",
    "timeout",
    "max_attempts",
    "cls",
    "callable",
    "result",
    "return_",
    "model_config",
    "data",
    "given",
    "values",
    "signature",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_may_have_any_name(tasks: Afterward, name: str) -> None:
    """By position or by keyword, at every way into the store, and when it is called directly."""
    namespace: dict[str, Any] = {"__name__": __name__}
    exec(f"def function({name}: int, other: int = 0): return {name}", namespace)
    task = tasks.task(name=name)(namespace["function"])
    assert task(**{name: 1}) == 1
    for copy in (task, task.options(delay=5, queue="slow", unique="k")):
        for job in (prepared_by_keyword(copy, **{name: 1}), copy.prepare(1)):
            args, kwargs = task.arguments.load(job.arguments)
            assert task.function(*args, **kwargs) == 1


def prepared_by_keyword(task: Task[..., Any], /, **kwargs: Any) -> NewJob:
    return task.prepare(**kwargs)


@pytest.mark.parametrize("name", NAMES)
def test_keywords_beyond_the_named_ones_may_have_any_name(tasks: Afterward, name: str) -> None:
    def function(**settings: int) -> dict[str, int]:
        return settings

    task = tasks.task(function)
    args, kwargs = task.arguments.load(task.prepare(**{name: 1}).arguments)
    assert function(*args, **kwargs) == {name: 1}


# Names.


def test_name_of_tells_module_and_place() -> None:
    class Place:
        def method(self) -> None: ...

    assert name_of(send) == f"{__name__}:send"
    assert name_of(Path.exists) == f"{Path.__module__}:Path.exists"
    assert name_of(Place.method).endswith(":test_name_of_tells_module_and_place.<locals>.Place.method")


@pytest.mark.parametrize("function", [functools.partial(send), lambda: None], ids=["partial", "lambda"])
def test_what_has_no_name_is_refused_with_the_mend(function: Any) -> None:
    with pytest.raises(TaskError, match=r"decorate a `def` or `async def`"):
        name_of(function)


def test_a_function_without_a_name_can_be_given_one(tasks: Afterward) -> None:
    """A partial keeps the types of its function."""
    task = tasks.task(name="send-to-all")(functools.partial(send, "all@example.com"))
    assert task.name == "send-to-all"
    args, kwargs = task.arguments.load(prepared(task, text="hello").arguments)
    assert task.function(*args, **kwargs) == "all@example.com: hello"


def test_a_partial_of_a_task_function_keeps_its_annotations(tasks: Afterward) -> None:
    def remind(at: datetime, text: str = "") -> tuple[datetime, str]:
        return at, text

    task = tasks.task(name="remind")(functools.partial(remind, text="hello"))
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    args, kwargs = task.arguments.load(prepared(task, moment).arguments)
    assert task.function(*args, **kwargs) == (moment, "hello")


def test_a_callable_object_can_be_a_task(tasks: Afterward) -> None:
    class Sender:
        def __call__(self, at: datetime) -> datetime:
            return at

    task = tasks.task(name="sender")(Sender())
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    args, kwargs = task.arguments.load(prepared(task, moment).arguments)
    assert task.function(*args, **kwargs) == moment


# Many calls as one.


def test_each_prepared_call_has_an_id_of_its_own(tasks: Afterward) -> None:
    task = tasks.task(send)
    ids = [prepared(task, "a").id for _ in range(100)]
    assert ids == sorted(set(ids))


@pytest.mark.anyio
async def test_of_many_calls_one_that_is_refused_leaves_nothing_stored(tasks: Afterward) -> None:
    task = tasks.task(send)
    wrong: Iterable[Any] = ["a", "b", 5]
    with pytest.raises(ArgumentError):
        await tasks.enqueue_many(task.prepare(address) for address in wrong)
    async with tasks.running(None):
        assert await tasks.list() == []
