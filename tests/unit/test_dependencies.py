"""What a task depends on, read from signatures; and what is refused there, before anything runs."""

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any

import fastapi
import pytest
import starlette.background
from fastapi import Body, Cookie, Depends, File, Form, Header, Query, Security, UploadFile
from fastapi import Path as InPath
from fastapi.requests import HTTPConnection, Request
from fastapi.responses import JSONResponse, Response
from fastapi.security import APIKeyHeader, HTTPBearer, OAuth2PasswordBearer, SecurityScopes
from fastapi.websockets import WebSocket
from starlette.datastructures import State

import afterward
from afterward import Afterward, TaskError, lifespan_state
from afterward.dependencies import Kind, Needs, dependencies_of, needs_lifespan


def value() -> str:
    return "a value"


# The graph


def kinds(needs: Needs) -> dict[str, Any]:
    """What is depended on, by name: how it is called, or that with what it depends on itself."""
    return {name: (d.kind.name, kinds(d.needs)) if d.needs else d.kind.name for name, d in needs}


def test_the_graph_follows_the_parameters_in_their_order() -> None:
    async def awaited() -> None: ...

    def generated(second: Annotated[None, Depends(awaited)]) -> Iterator[None]:
        yield

    async def generated_in_loop(third: Annotated[None, Depends(generated)], first: str = Depends(value)) -> Any:
        yield

    def function(
        one: Annotated[str, Depends(generated_in_loop)],
        two: int,
        three: State = Depends(lifespan_state),
        four: str = Depends(value),
    ) -> None: ...

    needs = dependencies_of(function, "app:send")

    assert kinds(needs) == {
        "one": ("async_generator", {"third": ("generator", {"second": "awaited"}), "first": "threaded"}),
        "three": "given",
        "four": "threaded",
    }
    assert [name for name, _ in needs] == ["one", "three", "four"]
    assert needs_lifespan(needs)
    assert not needs_lifespan(needs[:1])


def test_without_dependencies_there_is_nothing() -> None:
    def function(one: int, *rest: str, two: Annotated[str, "a note"] = "", **more: Any) -> None: ...

    assert dependencies_of(function, "app:send") == ()


class Object:
    """What can be called, in each of its ways."""

    def method(self) -> None: ...

    async def async_method(self) -> None: ...

    def generator(self) -> Iterator[None]:
        yield

    def __call__(self) -> None: ...


class Generating:
    def __call__(self) -> Iterator[None]:
        yield


class GeneratingInLoop:
    async def __call__(self) -> AsyncIterator[None]:
        yield


class Awaited:
    async def __call__(self) -> None: ...


@functools.wraps(Object.async_method)
def wrapper(*args: Any) -> Any:
    return Object.async_method(Object())


CALLS: list[tuple[Callable[..., Any], Kind]] = [
    (value, Kind.threaded),
    (lambda: None, Kind.threaded),
    (Object, Kind.threaded),
    (Object(), Kind.threaded),
    (Object().method, Kind.threaded),
    (Object().async_method, Kind.awaited),
    (Object().generator, Kind.generator),
    (Generating, Kind.threaded),
    (Generating(), Kind.generator),
    (GeneratingInLoop(), Kind.async_generator),
    (Awaited(), Kind.awaited),
    (functools.partial(Object().async_method), Kind.awaited),
    (functools.partial(functools.partial(Object().generator)), Kind.generator),
    (functools.partial(wrapper, Object()), Kind.awaited),
    (lifespan_state, Kind.given),
]


@pytest.mark.parametrize(("call", "kind"), CALLS, ids=[f"{call!r:.60}".partition(" at ")[0] for call, _ in CALLS])
def test_how_a_dependency_is_called_is_told_by_what_it_is(call: Callable[..., Any], kind: Kind) -> None:
    def function(it: Any = Depends(call)) -> None: ...

    [(_, dependency)] = dependencies_of(function, "app:send")
    assert dependency.kind is kind


def test_depends_alone_means_the_class_of_the_annotation() -> None:
    """With and without `Annotated`."""

    def function(one: Annotated[Object, Depends()], two: Object = Depends()) -> None: ...

    assert [dependency.call for _, dependency in dependencies_of(function, "app:send")] == [Object, Object]


def test_security_is_a_dependency() -> None:
    """Its scopes are for requests: nobody here asks for them."""

    def function(it: str = Security(value, scopes=["admin"])) -> None: ...

    [(_, dependency)] = dependencies_of(function, "app:send")
    assert (dependency.call, dependency.kind) == (value, Kind.threaded)


def test_of_several_the_last_one_counts() -> None:
    """As in FastAPI: who narrows an alias says the last word."""

    def function(it: Annotated[str, Depends(lambda: ""), "a note", Depends(value)]) -> None: ...

    [(_, dependency)] = dependencies_of(function, "app:send")
    assert dependency.call is value


def test_overrides_take_the_place_of_what_they_override_at_any_depth() -> None:
    """It keeps its name there; what stands in for it is looked at like everything else."""

    def fake(it: Annotated[str, Depends(other)]) -> str:
        return it

    def function(it: Annotated[str, Depends(outer)]) -> None: ...

    [(_, dependency)] = dependencies_of(function, "app:send", {value: fake, other: Object})
    [(_, inner)] = dependency.needs
    [(_, innermost)] = inner.needs
    assert (dependency.call, inner.key, inner.call, innermost.key, innermost.call) == (
        outer,
        value,
        fake,
        other,
        Object,
    )


def other() -> str:
    return "another value"


def outer(it: Annotated[str, Depends(value)]) -> str:
    return it


# Annotations as text


def module(text: str) -> dict[str, Any]:
    """What a module of this text has defined."""
    names: dict[str, Any] = {"__name__": "app"}
    head = "from __future__ import annotations\nfrom typing import *\nfrom fastapi import *\n"
    exec(compile(head + dedent(text), "app.py", "exec"), names)
    return names


def test_annotations_are_read_where_they_are_written() -> None:
    """Also those of classes, of methods, and through partials."""
    names = module("""
        class Settings:
            def __init__(self, it: Annotated[str, Depends(value)]): ...
            def read(self, it: Annotated[str, Depends(value)]): ...
        def value(): ...
        def function(one: Annotated[Settings, Depends()], two: Annotated[str, Depends(Settings.read)] = ""): ...
        def right(one: Annotated[Settings, Depends()], two: str): ...
    """)

    [(name, dependency)] = dependencies_of(functools.partial(names["right"], two=""), "app:send")

    assert (name, dependency.call) == ("one", names["Settings"])
    assert [sub.call for _, sub in dependency.needs] == [names["value"]]
    with pytest.raises(TaskError, match=r"read → self needs the request"):
        dependencies_of(names["function"], "app:send")


def test_a_type_for_type_checkers_alone_may_annotate_what_has_depends_as_its_default(tmp_path: Path) -> None:
    """Nothing hangs on it, neither here nor where the arguments are stored. Elsewhere, it is named with the mend."""
    names = module("""
        def get_session(engine: Engine = Depends(lambda: 1)) -> Iterator[Session]: ...
        def write(line: str, session: Session = Depends(get_session)): ...
        def wrong(line: str, session: Annotated[Session, Depends(get_session)]): ...
        def get_odd(session: Annotated[Session, Depends(get_session)]): ...
        def wrong_inside(line: str, it: str = Depends(get_odd)): ...
    """)
    tasks = Afterward(f"sqlite:///{tmp_path}/jobs.db")

    assert tasks.task(names["write"]).prepare("hello").arguments == '{"line":"hello"}'

    tasks.task(names["wrong"])  # what it names may still be defined
    with pytest.raises(
        TaskError, match=r"task app:wrong: its annotations cannot be resolved, at session .*module level"
    ):
        tasks.check()
    with pytest.raises(TaskError, match="at get_odd → session"):
        tasks.task(names["wrong_inside"]).prepare("hello")


def test_what_is_defined_later_in_a_module_is_found_when_the_tasks_are_checked(tmp_path: Path) -> None:
    """A task is declared before the names that its annotations use: nothing is refused, nor overlooked."""
    tasks = Afterward(f"sqlite:///{tmp_path}/jobs.db")
    names: dict[str, Any] = {"__name__": "app", "tasks": tasks}
    exec(
        dedent("""
        from __future__ import annotations
        from typing import *
        from fastapi import Depends, Header
        @tasks.task
        def write(line: Line, session: Annotated[int, Depends(get_session)]): ...
        early = write.options(delay=1)
        @tasks.task
        def wrong(user: Annotated[int, Depends(get_user)]): ...
        def get_session(): ...
        def get_user(token: Annotated[str, Header()]): ...
        Line = str
        """),
        names,
    )

    assert names["early"].prepare("hello").arguments == '{"line":"hello"}'
    assert names["write"].prepare("hello").arguments == '{"line":"hello"}'
    with pytest.raises(TaskError, match=r"task app:wrong: get_user → token needs the request \(Header\)"):
        tasks.check()


# What is refused


OF_THE_REQUEST: dict[str, tuple[Any, str]] = {
    "Request": (Request, "pass what the task needs of it"),
    "HTTPConnection": (HTTPConnection, "pass what the task needs of it"),
    "WebSocket": (WebSocket, "pass what the task needs of it"),
    "Response": (Response, "return what the task has made"),
    "JSONResponse": (JSONResponse, "return what the task has made"),
    "SecurityScopes": (SecurityScopes, "check rights in the endpoint"),
    "fastapi BackgroundTasks": (fastapi.BackgroundTasks, "other_task.enqueue"),
    "starlette BackgroundTasks": (starlette.background.BackgroundTasks, "other_task.enqueue"),
    "afterward BackgroundTasks": (afterward.BackgroundTasks, "other_task.enqueue"),
    "Header": (Annotated[str, Header()], "read it in the endpoint"),
    "Query": (Annotated[str, Query()], "read it in the endpoint"),
    "Path": (Annotated[str, InPath()], "read it in the endpoint"),
    "Cookie": (Annotated[str, Cookie()], "read it in the endpoint"),
    "Body": (Annotated[str, Body()], "read it in the endpoint"),
    "Form": (Annotated[str, Form()], "read it in the endpoint"),
    "File": (Annotated[bytes, File()], "read it in the endpoint"),
    "OAuth2PasswordBearer": (Annotated[str, Depends(OAuth2PasswordBearer("token"))], "pass what follows from them"),
    "APIKeyHeader": (Annotated[str, Security(APIKeyHeader(name="key"))], "pass what follows from them"),
    "HTTPBearer": (Annotated[str, Depends(functools.partial(HTTPBearer()))], "pass what follows from them"),
}

READ_BY_FASTAPI: dict[str, Any] = {
    "text": str,
    "a file": UploadFile,
    "a list": list[int],
    "a class": Object,
    "nothing": None,
}


def taking(annotation: Any, **default: Any) -> Callable[..., Any]:
    """A dependency with one parameter."""

    def get_user(token: Any) -> None: ...

    get_user.__annotations__["token"] = annotation
    if default:
        get_user.__defaults__ = (default["default"],)
    return get_user


@pytest.mark.parametrize("default", [{}, {"default": None}], ids=["without default", "with default"])
@pytest.mark.parametrize("name", OF_THE_REQUEST)
def test_what_needs_the_request_is_refused_where_the_task_is_declared(
    tmp_path: Path, name: str, default: dict[str, Any]
) -> None:
    """As a parameter of the task, of a dependency of it, or deeper; with the way there, and the mend."""
    tasks = Afterward(f"sqlite:///{tmp_path}/jobs.db")
    annotation, mend = OF_THE_REQUEST[name]
    get_user = taking(annotation, **default)

    def get_rights(user: Annotated[None, Depends(get_user)]) -> None: ...

    def send(email: str, rights: None = Depends(get_rights)) -> None: ...

    def declared(function: Callable[..., Any]) -> str:
        with pytest.raises(TaskError) as refused:
            tasks.task(name="send")(function)
        return str(refused.value)

    assert declared(get_user).startswith("task send: token needs the request (")
    deeper = declared(send)
    assert deeper.startswith("task send: get_rights → get_user → token needs the request (")
    assert name.rsplit(maxsplit=1)[-1] in deeper
    assert mend in deeper
    assert tasks.tasks == {}


@pytest.mark.parametrize("marker", [Header, Query, InPath, Cookie, Body, Form, File])
def test_so_is_what_its_default_reads_from_the_request(marker: Callable[[], Any]) -> None:
    def get_user(token: str = marker()) -> None: ...

    def send(user: None = Depends(get_user)) -> None: ...

    for function, way in ((get_user, "token"), (send, "get_user → token")):
        with pytest.raises(TaskError, match=rf"task app:send: {way} needs the request \({marker.__name__}\)"):
            dependencies_of(function, "app:send")


@pytest.mark.parametrize("default", [{}, {"default": None}], ids=["without default", "with default"])
@pytest.mark.parametrize("name", READ_BY_FASTAPI)
def test_so_is_what_fastapi_would_read_from_the_query_or_the_body(name: str, default: dict[str, Any]) -> None:
    """A dependency of a task can have no other parameters than dependencies: nobody would fill them."""
    get_user = taking(READ_BY_FASTAPI[name], **default)

    def send(user: None = Depends(get_user)) -> None: ...

    with pytest.raises(TaskError, match=r"get_user → token needs the request \(FastAPI would read it .* no parameters"):
        dependencies_of(send, "app:send")


def test_a_dependency_for_a_type_of_the_request_is_a_dependency() -> None:
    """What stands in `Depends` counts, not what it gives: FastAPI calls that, too."""

    def function(request: Annotated[Request, Depends(value)]) -> None: ...

    assert kinds(dependencies_of(function, "app:send")) == {"request": "threaded"}


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self) -> None: ...


def itself(it: Any) -> None: ...


def roundabout(it: Annotated[None, Depends(itself)]) -> None: ...


itself.__annotations__["it"] = Annotated[None, Depends(roundabout)]


def positional(it: Annotated[str, Depends(value)], /) -> None: ...


def rest(*it: Annotated[str, Depends(value)]) -> None: ...


def more(**it: Annotated[str, Depends(value)]) -> None: ...


def before_rest(it: Annotated[str, Depends(value)], *rest: str) -> None: ...


def twice(it: Annotated[str, Depends(value)] = Depends(value)) -> None: ...


def of_nothing(it=Depends()) -> None: ...  # type: ignore[no-untyped-def]


def of_a_number(it: Annotated[str, Depends(5)]) -> None: ...  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def of_a_builtin(it: Annotated[dict[str, str], Depends(max)]) -> None: ...


def of_what_has_no_hash(it: Annotated[None, Depends(Unhashable())]) -> None: ...


def inside(it: Annotated[None, Depends(positional)]) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (itself, r"roundabout → itself → roundabout depends on itself; break the circle"),
        (positional, r"the dependency it cannot be filled; make it one that is passed by name"),
        (inside, r"the dependency positional → it cannot be filled; make it one that is passed by name"),
        (rest, r"the dependency it cannot be filled; make it one that is passed by name"),
        (more, r"the dependency it cannot be filled; make it one that is passed by name"),
        (before_rest, r"the dependency it cannot be filled; make it keyword-only"),
        (twice, r"it is said twice, in Annotated and as its default; say it once"),
        (of_nothing, r"it depends on typing\.Any, which cannot be called; depend on a function or a class"),
        (of_a_number, r"it depends on 5, which cannot be called; depend on a function or a class"),
        (of_a_builtin, r"its dependency max: its signature cannot be had .*wrap it in a `def`"),
        (of_what_has_no_hash, r"it depends on <.*Unhashable.*>, which cannot be told from others"),
    ],
    ids=lambda case: case.__name__ if callable(case) else "",
)
def test_what_cannot_work_is_refused(function: Callable[..., Any], message: str) -> None:
    """With the mend."""
    with pytest.raises(TaskError, match=rf"^task app:send: {message}"):
        dependencies_of(function, "app:send")
