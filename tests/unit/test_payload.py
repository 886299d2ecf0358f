"""Arguments as JSON: what is stored reads back equal to what was given, and all else is refused at the call."""

import contextlib
import dataclasses
import functools
import io
import json
import re
import socket
import sys
import tempfile
import threading
import typing
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, SecretStr, computed_field
from pydantic.alias_generators import to_camel
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.websockets import WebSocket
from typing_extensions import TypedDict

from afterward.arguments import ArgumentCodec
from afterward.codec import DEFAULT_MAX_BYTES
from afterward.errors import ArgumentError, ArgumentsDoNotFit, TaskError

T = TypeVar("T")


def codec(function: Callable[..., Any], max_bytes: int = DEFAULT_MAX_BYTES) -> ArgumentCodec:
    return ArgumentCodec(function, "app:send", max_bytes)


def taking(annotation: Any) -> Callable[..., Any]:
    """A function with one parameter, that returns what it is given."""

    def function(value: Any) -> Any:
        return value

    function.__annotations__["value"] = annotation
    return function


def through(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """What the function returns when its arguments have been stored and read again."""
    arguments = codec(function)
    args, kwargs = arguments.load(arguments.dump(args, kwargs))
    return function(*args, **kwargs)


def arrived(annotation: Any, value: Any) -> Any:
    return through(taking(annotation), value)


def refusal(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(ArgumentError) as refused:
        codec(function).dump(args, kwargs)
    return str(refused.value)


def labels(cases: list[tuple[Any, Any]]) -> list[str]:
    """Names for tests of annotations with values."""

    def label(annotation: Any, value: Any) -> str:
        kind = annotation.__name__ if isinstance(annotation, type) else str(annotation)
        shown = type(value).__name__ if isinstance(value, int) and abs(value) > 2**64 else repr(value)
        return re.sub(r"\w+\.|typing\.", "", kind) + ": " + ascii(shown)[1:-1][:50]

    return [label(annotation, value) for annotation, value in cases]


def blamed(refusal: str) -> str:
    """The place that a refusal names."""
    found = re.search(r"argument ([\"'])(.+?)\1 \(", refusal)
    assert found, refusal
    return found[2]


class Colour(Enum):
    red = "r"
    green = "g"


class Level(IntEnum):
    low = 1
    high = 2


class State(StrEnum):
    on = "on"


class Item(BaseModel):
    name: str
    price: float = 0.0
    tags: set[str] = set()


class Discounted(Item):
    percent: int = 10


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass
class Point3D(Point):
    z: int = 0


@dataclass(frozen=True, slots=True)
class Frozen:
    at: datetime


class Pair(NamedTuple):
    left: int
    right: str


class Options(TypedDict):
    verbose: bool


class Box(BaseModel, Generic[T]):
    content: T


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    first_name: str
    last_name: str = ""


class CamelStrict(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", serialize_by_alias=True)
    first_name: str


class Apart(BaseModel):
    number: int = Field(validation_alias="in", serialization_alias="out")


class Area(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int
    height: int

    @computed_field
    @property
    def size(self) -> int:
        return self.width * self.height


class Patch(BaseModel):
    name: str | None = None
    price: float | None = None


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str


class Numbers(RootModel[list[int]]):
    pass


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    lives: int = 1


class Stamped(BaseModel):
    id: UUID = Field(default_factory=uuid4)
    note: str | None = None


class Node(BaseModel):
    value: int
    children: list["Node"] = []


BERLIN = ZoneInfo("Europe/Berlin")
INDIA = timezone(timedelta(hours=5, minutes=30))

GOOD: list[tuple[Any, Any]] = [
    (int, 2**63),
    (int, -(10**4000)),
    (float, 0.1),
    (float, 5e-324),
    (float, -0.0),
    (float, 3),
    (str, ""),
    (str, "a\0b\u2028😀\x7f"),
    (bool, True),
    (None, None),
    (bytes, b""),
    (bytes, b"text"),
    (bytes, b"\xff\xfe\x00"),
    (list[bytes], [b"\xff", b"a"]),
    (dict[str, bytes], {"a": b"\xff"}),
    (tuple[bytes, int], (b"\xff", 1)),
    (bytes | None, b"\xff"),
    (bytes | None, None),
    (Decimal, Decimal("1.10")),
    (Decimal, Decimal("-1E+400")),
    (date, date(1, 1, 1)),
    (date, date(9999, 12, 31)),
    (datetime, datetime.fromisoformat("2024-02-29T01:02:03.000004")),
    (datetime, datetime(2024, 2, 29, 1, 2, 3, 999999, tzinfo=UTC)),
    (datetime, datetime(2024, 7, 1, tzinfo=BERLIN)),
    (datetime, datetime(2024, 7, 1, tzinfo=INDIA)),
    (datetime, datetime.fromisoformat("9999-12-31T23:59:59.999999")),
    (datetime, datetime.fromisoformat("0001-01-01T00:00:00")),
    (time, time(23, 59, 59, 999999)),
    (time, time(12, tzinfo=UTC)),
    (timedelta, timedelta(days=-1, microseconds=1)),
    (timedelta, timedelta.max),
    (timedelta, timedelta.min),
    (UUID, UUID(int=0)),
    (Path, Path("a/../ü")),
    (Path, Path()),
    (Colour, Colour.green),
    (Level, Level.high),
    (State, State.on),
    (Literal["a", 1], 1),
    (list[int], []),
    (list[list[int]], [[1], []]),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (tuple[()], ()),
    (set[int], {1, 2}),
    (frozenset[str], frozenset({"a"})),
    (dict[str, int], {"a": 1, "": 2}),
    (dict[int, str], {1: "a", -5: "b"}),
    (dict[UUID, date], {UUID(int=1): date(2024, 1, 1)}),
    (Sequence[int], [1, 2]),
    (Mapping[str, int], {"a": 1}),
    (int | None, None),
    (int | str, "5"),
    (int | str, 5),
    (int | float, 5),
    (int | float, 5.5),
    (Item, Item(name="a", price=0.1, tags={"x"})),
    (Item | None, None),
    (Item | Point, Point(1)),
    (list[Item], [Item(name="a"), Item(name="b")]),
    (dict[str, Item], {"a": Item(name="a")}),
    (Discounted, Discounted(name="a", percent=5)),
    (Item | Discounted, Discounted(name="a", percent=5)),
    (Point, Point(1, 2)),
    (Point3D, Point3D(1, 2, 3)),
    (Frozen, Frozen(datetime(2024, 1, 1, tzinfo=UTC))),
    (Pair, Pair(1, "a")),
    (list[Pair], [Pair(1, "a")]),
    (Options, {"verbose": True}),
    (Box[int], Box[int](content=1)),
    (Box[Item], Box[Item](content=Item(name="a"))),
    (Camel, Camel.model_validate({"firstName": "Ada", "lastName": "L"})),
    (CamelStrict, CamelStrict.model_validate({"firstName": "Ada"})),
    (list[Camel], [Camel.model_validate({"firstName": "Ada"})]),
    (Apart, Apart.model_validate({"in": 5})),
    (Area, Area(width=2, height=3)),
    (Open, Open.model_validate({"name": "a", "more": [1]})),
    (Numbers, Numbers([1, 2])),
    (Node, Node(value=1, children=[Node(value=2)])),
    (Cat | Dog, Dog()),
    (Annotated[Cat | Dog, Field(discriminator="kind")], Dog()),
    (list[Annotated[Cat | Dog, Field(discriminator="kind")]], [Dog(lives=2), Cat(), Dog()]),
    (Stamped, Stamped(id=UUID(int=1))),
    (Annotated[int, Field(ge=0)], 5),
    (Annotated[str, "for people"], "a"),
    (Any, {"a": [1, 2.5, None, True, "x", {}]}),
    (Any, []),
]


@pytest.mark.parametrize(("annotation", "value"), GOOD, ids=labels(GOOD))
def test_what_fits_its_annotation_arrives_as_it_was(annotation: Any, value: Any) -> None:
    """Equal, and of the same type."""
    result = arrived(annotation, value)
    assert result == value
    assert annotation is float or type(result) is type(value)


NAMES = [
    "x", "self", "func", "args", "kwargs", "arguments", "name", "model_config", "delay", "_private", "__dunder__", "ü",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_stored_by_the_names_of_their_parameters(name: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"def function({name}: int, other: str = 'o'): return {name}", namespace)
    arguments = codec(namespace["function"])
    assert json.loads(arguments.dump((1,), {})) == {name: 1}
    assert json.loads(arguments.dump((), {name: 1, "other": "p"})) == {name: 1, "other": "p"}


# Instants, to the letter.


@pytest.mark.parametrize("fold", [0, 1])
@pytest.mark.parametrize("moment", ["2024-10-27T02:30:00", "2024-03-31T02:30:00"], ids=["twice", "never"])
def test_an_hour_in_which_the_clocks_are_set_is_an_hour_as_any_other(moment: str, fold: int) -> None:
    """02:30 comes twice in Berlin on one night of the year, and never on another; the instant arrives."""
    given = datetime.fromisoformat(moment).replace(fold=fold, tzinfo=BERLIN)
    result = arrived(datetime, given)
    assert result.timestamp() == given.timestamp()
    assert result.utcoffset() == given.utcoffset()
    in_a_list = arrived(list[datetime], [given])
    assert [at.timestamp() for at in in_a_list] == [given.timestamp()]


def test_a_time_of_day_whose_zone_would_vanish_is_refused() -> None:
    """Without a date, Berlin's time has no offset that could be written down."""
    assert blamed(refusal(taking(time), time(12, tzinfo=BERLIN))) == "value"


# Models.


def test_what_was_not_set_in_a_model_is_still_not_set() -> None:
    """A partial update says what to change by what is set: what the caller left out must not arrive as a wish."""
    patch = Patch(name="new")
    assert arrived(Patch, patch).model_dump(exclude_unset=True) == {"name": "new"}


def test_a_model_with_what_its_validation_would_refuse_is_refused() -> None:
    """It would be refused as well when it is read again."""
    assert blamed(refusal(taking(Item), Item.model_construct(name=5))).startswith("value")


# What would come back as something else.


@pytest.mark.parametrize("annotation", [bytes | str, str | bytes, list[bytes | str], dict[str, str | bytes]], ids=str)
@pytest.mark.parametrize("value", [b"text", b"\xff\xfe", b"dGV4dA==", "text", "dGV4dA==", "\xff", ""], ids=ascii)
def test_what_may_be_text_or_bytes_arrives_as_what_it_was_or_is_refused(annotation: Any, value: Any) -> None:
    given = {"list": [value], "dict": {"a": value}}.get(getattr(annotation, "__name__", ""), value)
    try:
        result = arrived(annotation, given)
    except ArgumentError:
        return
    assert repr(result) == repr(given)


class LooseEntity(BaseModel):
    """As entities are that are equal when their keys are."""

    id: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LooseEntity) and self.id == other.id

    __hash__ = None  # type: ignore[assignment]


class LooseUser(LooseEntity):
    email: str


class Tagged(str):
    __slots__ = ("tag",)
    tag: str


def tagged() -> Tagged:
    text = Tagged("a")
    text.tag = "b"
    return text


CHANGED: list[tuple[Any, Any]] = [
    (Item, Discounted(name="a", percent=5)),
    (list[Item], [Discounted(name="a", percent=5)]),
    (Point, Point3D(1, 2, 3)),
    (list[Point], [Point3D(1, 2, 3)]),
    (LooseEntity, LooseUser(id=1, email="ada@example.com")),
    (list[LooseEntity], [LooseUser(id=1, email="ada@example.com")]),
    (str, tagged()),
    (tuple[int, str], Pair(1, "a")),
    (dict[str, int], Counter("aab")),
    (dict[str, int], defaultdict(int, a=1)),
    (SecretStr, SecretStr("hush")),
    (Any, SecretStr("hush")),
    (Any, (1, 2)),
    (Any, {1, 2}),
    (Any, {1: "a"}),
    (Any, b"text"),
    (Any, Item(name="a")),
    (Any, Point(1)),
    (Any, datetime(2024, 1, 1, tzinfo=UTC)),
    (Any, Decimal("1.5")),
    (Any, Path("a")),
    (Any, Colour.red),
    (Any, timedelta(1)),
    (list[int], (1, 2)),
    (tuple[int, ...], [1, 2]),
    (Sequence[int], (1, 2)),
    (Iterable[int], [1, 2]),
    (list[int], range(3)),
    (str, 5),
    (int, "5"),
    (int, 5.5),
    (float, "5"),
    (bool, 5),
    (date, datetime(2024, 1, 1, 5, tzinfo=UTC)),
    (datetime, date(2024, 1, 1)),
    (datetime, "2024-01-01"),
    (UUID, "00000000-0000-0000-0000-000000000000"),
    (Colour, "r"),
    (Path, "a"),
    (Item, {"name": "a"}),
    (Options, {"verbose": True, "more": 1}),
    (Literal["a"], "b"),
    (Annotated[int, Field(ge=0)], -1),
    (float, float("nan")),
    (float, float("inf")),
    (float, -float("inf")),
    (list[float], [0.5, float("nan")]),
    (Any, float("inf")),
    (Decimal, Decimal("NaN")),
    (Decimal, Decimal("sNaN")),
    (Decimal, Decimal("Infinity")),
    (str, "\ud800"),
    (Any, ["\udcff"]),
    (dict[str, int], {"\ud800": 1}),
    (int, 10**5000),
    (Any, 10**5000),
]


@pytest.mark.parametrize(("annotation", "value"), CHANGED, ids=labels(CHANGED))
def test_what_would_arrive_as_something_else_is_refused(annotation: Any, value: Any) -> None:
    """With the argument, what is wrong, and what to do; never with the value itself."""
    said = refusal(taking(annotation), value)
    assert "task app:send" in said
    assert blamed(said).startswith("value")
    assert "hush" not in said
    assert "ada@example.com" not in said


class Session:
    """As a database session is: of a class that nobody can store, in a module known for it."""


Session.__module__ = "sqlalchemy.orm.session"


def request() -> Request:
    return Request({"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""})


async def _receive() -> Any: ...


async def _send(message: Any) -> None: ...


@pytest.fixture
def things(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What belongs to one process alone."""
    with socket.socket() as connection, (tmp_path / "file").open("w") as file:
        yield {
            "request": request(),
            "websocket": WebSocket({"type": "websocket", "path": "/", "headers": []}, _receive, _send),
            "upload": UploadFile(io.BytesIO()),
            "session": Session(),
            "socket": connection,
            "file": file,
            "lock": threading.Lock(),
            "lambda": lambda: None,
            "function": request,
            "generator": (n for n in range(3)),
            "iterator": iter([1]),
            "module": json,
            "class": int,
            "object": object(),
            "exception": ValueError("no"),
            "complex": 1j,
            "ellipsis": ...,
            "range": range(3),
            "memoryview": memoryview(b"x"),
            "bytearray": bytearray(b"x"),
            "namespace": SimpleNamespace(a=1),
            "partial": functools.partial(int),
            "context": tempfile.TemporaryDirectory,
        }


KINDS_OF_THINGS = [
    "request",
    "websocket",
    "upload",
    "session",
    "socket",
    "file",
    "lock",
    "lambda",
    "function",
    "generator",
    "iterator",
    "module",
    "class",
    "object",
    "exception",
    "complex",
    "ellipsis",
    "range",
    "memoryview",
    "bytearray",
    "namespace",
    "partial",
    "context",
]


@pytest.mark.parametrize(
    "annotation", [Any, str, int, list[int], dict[str, int], Item, Point, Colour, bytes | None, None]
)
@pytest.mark.parametrize("kind", KINDS_OF_THINGS)
def test_what_belongs_to_a_process_is_refused(things: dict[str, Any], kind: str, annotation: Any) -> None:
    """Whatever it is, alone, in a list, in a dictionary and in a model, by an error that names the argument."""
    thing = things[kind]
    for value in (thing, [thing], {"a": thing}, (thing,), Item.model_construct(name="a", price=thing)):
        assert blamed(refusal(taking(annotation), value)).startswith("value")


@pytest.mark.parametrize(
    ("kind", "mend"),
    [
        ("request", "pass what the task needs of the request"),
        ("websocket", "pass ids"),
        ("session", "open a session inside the task"),
    ],
)
def test_a_refusal_names_the_mend(things: dict[str, Any], kind: str, mend: str) -> None:
    """Where the parameter is annotated with nothing; and where it is, when the task is checked."""
    assert mend in refusal(taking(Any), things[kind])
    with pytest.raises(TaskError, match=mend):
        codec(taking(type(things[kind]))).check()


def test_a_secret_is_refused_with_the_mend() -> None:
    assert "read the secret inside the task" in refusal(taking(Any), SecretStr("hush"))
    assert "read the secret inside the task" in refusal(taking(SecretStr), SecretStr("hush"))


class Evil:
    """An object that resists whatever is done to it."""

    error: type[BaseException]

    def __init__(self, error: type[BaseException]) -> None:
        object.__setattr__(self, "error", error)

    def _resist(self, *_: object) -> Any:
        raise self.error("no")

    __eq__ = __ne__ = __lt__ = __hash__ = __repr__ = __str__ = __len__ = __iter__ = __bool__ = __int__ = _resist
    __getitem__ = __contains__ = __reduce__ = __format__ = __setattr__ = _resist


class EvilModel(BaseModel):
    name: str

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    def __repr__(self) -> str:
        raise RuntimeError("not printable")

    __str__ = __repr__
    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "error", [ValueError, RuntimeError, RecursionError, MemoryError, StopIteration, AttributeError]
)
@pytest.mark.parametrize("annotation", [Any, str, list[int], Item])
def test_an_object_that_resists_is_refused_as_any_other(annotation: Any, error: type[Exception]) -> None:
    for value in (Evil(error), [Evil(error)], {"a": Evil(error)}):
        assert blamed(refusal(taking(annotation), value)).startswith("value")


def test_a_model_that_cannot_be_compared_is_refused() -> None:
    assert blamed(refusal(taking(EvilModel), EvilModel(name="a"))).startswith("value")
    assert blamed(refusal(taking(list[EvilModel]), [EvilModel(name="a")])).startswith("value")


# Deep, round and large.


def nested(levels: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


def in_a_list(value: Any) -> list[Any]:
    return [value]


def in_a_dictionary(value: Any) -> dict[str, Any]:
    return {"a": value}


@pytest.mark.parametrize("wrap", [in_a_list, in_a_dictionary])
def test_a_thousand_levels_are_refused(wrap: Callable[[Any], Any]) -> None:
    assert blamed(refusal(taking(Any), nested(1000, wrap))).startswith("value")
    assert blamed(refusal(taking(list[Any]), [nested(1000, wrap)])).startswith("value")
    assert arrived(Any, nested(50, wrap)) == nested(50, wrap)


def test_a_deep_tree_of_models_is_refused_or_arrives() -> None:
    """Never anything else, such as the end of the interpreter's stack."""
    for levels in (10, 50, 100, 200, 500):
        tree = Node(value=0)
        for _ in range(levels):
            tree = Node(value=0, children=[tree])
        if levels <= 50:
            assert arrived(Node, tree) == tree
        else:
            with contextlib.suppress(ArgumentError):
                assert arrived(Node, tree) == tree


def test_a_cycle_is_refused() -> None:
    round_list: list[Any] = []
    round_list.append(round_list)
    round_dict: dict[str, Any] = {}
    round_dict["a"] = round_dict
    node = Node(value=1)
    node.children.append(node)
    for annotation, value in ((Any, round_list), (Any, round_dict), (list[Any], round_list), (Node, node)):
        assert blamed(refusal(taking(annotation), value)).startswith("value")


def test_one_thing_in_two_places_is_no_cycle() -> None:
    shared = [1]
    assert arrived(Any, [shared, shared, {"a": shared}]) == [[1], [1], {"a": [1]}]


@pytest.mark.parametrize("limit", [100, 10_000, DEFAULT_MAX_BYTES])
def test_the_limit_is_of_the_stored_bytes_to_the_byte(limit: int) -> None:
    """By default 256 KiB, the name of the parameter and the quotes included; counted in UTF-8."""
    arguments = codec(taking(str), limit)
    room = limit - len('{"value":""}')
    assert len(arguments.dump(("x" * room,), {}).encode()) == limit
    assert arguments.load(arguments.dump(("x" * room,), {})) == ((), {"value": "x" * room})
    arguments.dump(("é" * (room // 2),), {})
    for text in ("x" * (room + 1), "é" * (room // 2 + 1)):
        with pytest.raises(ArgumentError, match=r"more than the [\d,]+ allowed.*max_payload_bytes"):
            arguments.dump((text,), {})
    assert DEFAULT_MAX_BYTES == 256 * 1024


# Calls of every shape.


def echo_everything(a: int, /, b: int, c: int = 3, *rest: int, d: int, e: int = 5, **more: int) -> tuple[Any, ...]:
    return (a, b, c, rest, d, e, more)


def echo_required_keyword(a: int = 1, *, b: int) -> tuple[Any, ...]:
    return (a, b)


def echo_defaults(a: int = 1, b: int = 2, /, c: int = 3, *, d: int = 4) -> tuple[Any, ...]:
    return (a, b, c, d)


def echo_rest(*args: int, **kwargs: int) -> tuple[Any, ...]:
    return (args, kwargs)


def echo_middle(a: int = 1, *rest: int) -> tuple[Any, ...]:
    return (a, rest)


def echo_same_name(a: int, /, **more: int) -> tuple[Any, ...]:
    return (a, more)


CALLS: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
    (echo_everything, (1, 2), {"d": 4}),
    (echo_everything, (1, 2, 3, 4, 5), {"d": 4, "e": 6, "f": 7}),
    (echo_everything, (1,), {"b": 2, "d": 4}),
    (echo_everything, (1,), {"b": 2, "d": 4, "c": 9, "rest": 5, "more": 6, "a": 7}),
    (echo_defaults, (), {}),
    (echo_defaults, (7,), {}),
    (echo_defaults, (7, 8), {"c": 9}),
    (echo_defaults, (), {"c": 9, "d": 0}),
    (echo_rest, (), {}),
    (echo_rest, (1, 2, 3), {}),
    (echo_rest, (1,), {"args": 2, "kwargs": 3, "self": 4}),
    (echo_middle, (), {}),
    (echo_middle, (5,), {}),
    (echo_middle, (5, 6, 7), {}),
    (echo_middle, (), {"a": 6}),
    (echo_same_name, (1,), {"a": 2}),
]


@pytest.mark.parametrize(("function", "args", "kwargs"), CALLS, ids=[f"{f.__name__}{a}{k}" for f, a, k in CALLS])
def test_a_call_of_any_shape_arrives(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    assert through(function, *args, **kwargs) == function(*args, **kwargs)


WRONG_CALLS: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], str]] = [
    (echo_everything, (), {}, "missing a required"),
    (echo_everything, (1, 2), {}, "missing a required.*'d'"),
    (echo_everything, (1, 2), {"b": 3, "d": 4}, "multiple values.*'b'"),
    (echo_defaults, (1, 2, 3, 4), {}, "too many positional"),
    (echo_defaults, (), {"z": 1}, "unexpected keyword.*'z'"),
    (echo_defaults, (), {"a": 1}, "'a'.*positional only"),
    (taking(int), (), {}, "missing a required.*'value'"),
    (echo_required_keyword, (), {}, "missing a required.*'b'"),
    (echo_required_keyword, (1,), {}, "missing a required"),
    (taking(int), (1, 2), {}, "too many positional"),
    (taking(int), (1,), {"value": 1}, "multiple values.*'value'"),
    (taking(int), (), {"valeu": 1}, "missing a required|unexpected keyword"),
    (taking(int), (1,), {"": 1}, "unexpected keyword"),
]


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "said"), WRONG_CALLS, ids=[f"{f.__name__}-{said}" for f, *_, said in WRONG_CALLS]
)
def test_a_call_that_does_not_fit_the_signature_is_refused(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], said: str
) -> None:
    """With the signature, and what a direct call would say; it is a `TypeError`, as a direct call's would be."""
    with pytest.raises(ArgumentError, match=rf"task app:send\(.*: .*{said}") as refused:
        codec(function).dump(args, kwargs)
    assert isinstance(refused.value, TypeError)


def test_keywords_that_are_not_text_are_refused() -> None:
    with pytest.raises(ArgumentError):
        codec(echo_rest).dump((), {"\ud800": 1})


# Annotations.


def defined(source: str) -> Callable[..., Any]:
    """The function that a module with this source defines: one that no type checker would let pass."""
    namespace: dict[str, Any] = {"json": json, "Point": Point, "Any": Any}
    exec(source, namespace)
    function: Callable[..., Any] = namespace["function"]
    return function


def test_a_function_without_annotations_takes_what_json_knows() -> None:
    function = defined("def function(value, other=5): return value, other")
    assert through(function, {"a": [1, None]}) == ({"a": [1, None]}, 5)
    assert "annotate" in refusal(function, datetime(2024, 1, 1, tzinfo=UTC))


def test_an_annotation_may_be_text() -> None:
    function = defined("def function(value: 'dict[str, Point]'): return value")
    assert through(function, {"a": Point(1, 2)}) == {"a": Point(1, 2)}


def test_an_annotation_may_name_what_is_defined_later() -> None:
    """A module's names are there once the module is."""
    function = defined("def function(value: 'Later'): return value\nclass Later(Point): ...")
    later = function.__globals__["Later"](1)
    assert through(function, later) == later


MEANINGLESS = [
    "def function(value: 'OnlyForTheTypeChecker'): ...",
    "def function(value: 'json.Nothing'): ...",
    "def function(value: 'the name of somebody'): ...",
    "def function(value: 'Point[int]'): ...",
    "def function(value: '1 / 0'): ...",
    "from typing import Final\ndef function(value: Final[int]): ...",
    "def function(value: 5): ...",
    "def function(value: int) -> 'OnlyForTheTypeChecker': ...",
]


@pytest.mark.parametrize("source", MEANINGLESS)
def test_an_annotation_that_means_nothing_is_refused_with_the_mend(source: str) -> None:
    """When the tasks are checked at the start, and at a call: as `TaskError`, whatever is wrong with it."""
    for attempt in (lambda: codec(defined(source)).check(), lambda: codec(defined(source)).dump((1,), {})):
        with pytest.raises(TaskError, match=r"task app:send: .*annotat"):
            attempt()


@pytest.mark.parametrize("annotation", [Request, Session, socket.socket, ModuleType], ids=str)
def test_an_annotation_that_cannot_be_stored_is_refused_when_tasks_are_checked(annotation: Any) -> None:
    with pytest.raises(TaskError, match=r"argument 'value' is annotated .* cannot be stored; "):
        codec(taking(annotation)).check()


def test_what_pydantic_says_of_an_annotation_is_told() -> None:
    """Where the library knows the mend better: `typing.TypedDict` before Python 3.12 is one such case."""

    class Old(typing.TypedDict):
        verbose: bool

    if sys.version_info >= (3, 12):
        assert arrived(Old, {"verbose": True}) == {"verbose": True}
    else:
        with pytest.raises(TaskError) as refused:
            codec(taking(Old)).check()
        assert "typing_extensions.TypedDict" in f"{refused.value} {refused.value.__cause__}"


# What a refusal says.


class Order(BaseModel):
    items: list[Item]


def place(order: Order, note: str = "") -> Any:
    return order


def buy(items: list[Item]) -> Any:
    return items


PLACES: list[tuple[Callable[..., Any], Any, str]] = [
    (buy, [Item(name="a")] * 3 + [Item.model_construct(name="a", price=float("nan"))], "items[3].price"),
    (buy, [Item(name="a")] * 3 + [Item.model_construct(name="a", price="5")], "items[3].price"),
    (buy, [Item(name="a")] * 3 + [Item.model_construct(name="a", price=object())], "items[3].price"),
    (buy, [Item(name="a")] * 3 + [Item.model_construct(name="\ud800")], "items[3].name"),
    (buy, [Item(name="a")] * 3 + [Discounted(name="a")], "items[3]"),
    (buy, [Item(name="a")] * 3 + [object()], "items[3]"),
    (place, Order.model_construct(items=[Item.model_construct(name=None)]), "order.items[0].name"),
    (taking(Any), {"a": [1, {"b": (1, 2)}]}, "value['a'][1]['b']"),
    (taking(Any), {"a": [1, {"b": object()}]}, "value['a'][1]['b']"),
    (taking(Any), [0, float("nan")], "value[1]"),
    (taking(list[int]), [0, 1, "2"], "value[2]"),
    (taking(dict[str, int]), {"a": 1, "b": 2.5}, "value['b']"),
    (taking(tuple[int, bytes]), (1, "a"), "value[1]"),
    (taking(Point), Point(1, "2"), "value.y"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(
    ("function", "value", "path"), PLACES, ids=[f"{path}-{n}" for n, (_, _, path) in enumerate(PLACES)]
)
def test_a_refusal_names_the_place(function: Callable[..., Any], value: Any, path: str) -> None:
    """From the parameter down to what is to blame."""
    assert blamed(refusal(function, value)) == path


def test_of_several_arguments_the_one_to_blame_is_named() -> None:
    def function(a: int, b: list[int], c: str = "") -> None: ...

    assert blamed(refusal(function, 1, [2, object()], "x")) == "b[1]"
    assert blamed(refusal(function, 1, [2], c=object())) == "c"


@pytest.mark.parametrize(
    "value",
    [
        "hunter2-\ud800",
        ["hunter2", object()],
        {"hunter2": float("nan")},
        SecretStr("hunter2"),
        b"hunter2",
        ("hunter2",),
    ],
    ids=["text", "list", "dictionary", "secret", "bytes", "tuple"],
)
@pytest.mark.parametrize("annotation", [Any, int, list[int], Item, Colour, datetime, UUID, Literal["a"]])
def test_a_refusal_does_not_tell_the_values(annotation: Any, value: Any) -> None:
    """It ends up in logs, where arguments never are; the keys of dictionaries alone may be part of the place."""
    said = refusal(taking(annotation), value)
    assert "hunter2" not in said.replace("value['hunter2']", "")


# Reading.


def test_an_argument_left_out_takes_the_default_of_the_function_as_it_is_then() -> None:
    """What is stored is what was given: a default is not part of it."""

    def before(a: int, b: int = 1) -> tuple[int, int]:
        return a, b

    def after(a: int, b: int = 2, c: int = 3) -> tuple[int, int, int]:
        return a, b, c

    stored = codec(before).dump((0,), {})
    assert json.loads(stored) == {"a": 0}
    args, kwargs = codec(after).load(stored)
    assert after(*args, **kwargs) == (0, 2, 3)


def changed(a: int, c: int) -> None: ...


def narrowed(a: Literal[5]) -> None: ...


def removed() -> None: ...


def shifted(b: int, *rest: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "stored", "said"),
    [
        (changed, '{"a":1,"b":2}', "b|c"),
        (changed, '{"a":1}', "c: Field required"),
        (narrowed, '{"a":1}', "a: "),
        (removed, '{"a":1}', "a: "),
        (taking(int), '{"value":"x"}', "value: "),
        (taking(list[int]), '{"value":[1,"x"]}', r"value\[1\]: "),
        (shifted, '{"rest":[1]}', "b|positional"),
        (taking(int), "not JSON", ""),
        (taking(int), "", ""),
        (taking(int), "[]", ""),
        (taking(int), "null", ""),
        (taking(int), '{"value":1', ""),
    ],
)
def test_what_no_longer_fits_says_so(function: Callable[..., Any], stored: str, said: str) -> None:
    """By the one error that leaves the job for a process that it fits."""
    with pytest.raises(ArgumentsDoNotFit, match=f"do not fit app:send here: .*({said})"):
        codec(function).load(stored)


def test_what_a_validator_raises_says_that_it_does_not_fit() -> None:
    """Whatever it is: what was known when it was stored may not be known here."""
    known = {"a"}

    def look_up(name: str) -> str:
        if name not in known:
            raise KeyError(name)
        return name

    here = codec(taking(Annotated[str, AfterValidator(look_up)]))
    stored = here.dump(("a",), {})
    known.clear()
    with pytest.raises(ArgumentsDoNotFit, match="do not fit app:send here: KeyError: 'a'"):
        here.load(stored)


def test_nothing_stored_is_executed() -> None:
    """A name of a class or of a function in the store is text."""
    assert arrived(Any, {"__class__": "os.system", "py/object": "os.system"}) == {
        "__class__": "os.system",
        "py/object": "os.system",
    }


def test_an_ordered_dictionary_keeps_its_order() -> None:
    ordered = {"z": 1, "a": 2, "m": 3}
    assert list(arrived(dict[str, int], ordered)) == ["z", "a", "m"]
    assert list(arrived(Any, ordered)) == ["z", "a", "m"]


def test_a_codec_serves_many_threads_from_its_first_use_on() -> None:
    arguments = codec(buy)
    barrier = threading.Barrier(8)
    results: list[Any] = []

    def use() -> None:
        barrier.wait()
        results.append(arguments.load(arguments.dump(([Item(name="a")],), {})))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [((), {"items": [Item(name="a")]})] * 8


def test_dataclass_fields_that_are_not_compared_arrive_too() -> None:
    @dataclass
    class Noted:
        key: int
        note: str = dataclasses.field(default="", compare=False)

    assert arrived(Noted, Noted(1, "important")).note == "important"


def test_what_does_not_fit_is_told_by_argument() -> None:
    """Once for each, however deep inside it is; and of what is no argument at all."""

    def call(n: int, *, names: list[str], **more: int) -> None: ...

    codec = ArgumentCodec(call, "call")
    assert codec.misfits('{"n":1,"names":[],"more":{"m":2}}') == {}
    assert codec.misfits('{"n":"one","names":[1,"a"]}').keys() == {"n", "names"}
    assert codec.misfits('{"names":[],"odd":1}') == {"n": "Field required", "odd": "Extra inputs are not permitted"}
    assert codec.misfits("[]").keys() == codec.misfits("no JSON").keys() == {"arguments"}
