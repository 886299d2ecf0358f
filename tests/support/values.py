"""Values of every kind, generated: those that fit an annotation, and those that fit none."""

import socket
from collections import Counter, OrderedDict
from dataclasses import dataclass, is_dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast
from uuid import UUID

from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel
from starlette.requests import Request
from typing_extensions import TypedDict


class Colour(Enum):
    red = "r"
    green = 2


class Level(IntEnum):
    low = 1
    high = 2


class State(StrEnum):
    on = "on"
    off = "off"


class Item(BaseModel):
    name: str
    price: Decimal | None = None
    made: datetime | None = None
    tags: frozenset[str] = frozenset()


class Discounted(Item):
    percent: int = 10


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    first_name: str
    last_name: str = ""


def camel(first: str, last: str) -> Camel:
    """One, as it comes in a request."""
    return Camel.model_validate({"firstName": first, "lastName": last})


@dataclass
class Point:
    x: int
    y: float = 0.0


@dataclass
class Point3D(Point):
    z: int = 0


class Pair(NamedTuple):
    left: int
    right: str


class Options(TypedDict):
    verbose: bool
    names: list[str]


class Loose(NamedTuple):
    a: int
    b: str


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
finite = st.floats(allow_nan=False, allow_infinity=False)
# Of a fixed offset: what a zone's rules do to an instant is the subject of tests of their own.
offsets = st.builds(timezone, st.integers(-12 * 60, 14 * 60).map(lambda minutes: timedelta(minutes=minutes)))
first, last = datetime.fromisoformat("0001-01-02"), datetime.fromisoformat("9999-12-30")
moments = st.datetimes(first, last) | st.datetimes(first, last, timezones=offsets)
amounts = st.decimals(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
items = st.builds(
    Item, name=texts, price=st.none() | amounts, made=st.none() | moments, tags=st.frozensets(texts, max_size=3)
)
points = st.builds(Point, x=st.integers(), y=finite)

FITTING: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (float, finite),
    (str, texts),
    (bool, st.booleans()),
    (None, st.none()),
    (bytes, st.binary(max_size=20)),
    (list[bytes], st.lists(st.binary(max_size=5), max_size=3)),
    (bytes | None, st.none() | st.binary(max_size=5)),
    (Decimal, amounts),
    (date, st.dates()),
    (datetime, moments),
    (time, st.times() | st.times(timezones=offsets)),
    (timedelta, st.timedeltas()),
    (UUID, st.uuids()),
    (Path, texts.map(Path)),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (State, st.sampled_from(State)),
    (Literal["a", 1] | None, st.sampled_from(["a", 1, None])),
    (Annotated[int, Field(ge=0)], st.integers(0)),
    (list[int], st.lists(st.integers(), max_size=4)),
    (tuple[int, str], st.tuples(st.integers(), texts)),
    (tuple[float, ...], st.lists(finite, max_size=4).map(tuple)),
    (set[str], st.sets(texts, max_size=4)),
    (frozenset[date], st.frozensets(st.dates(), max_size=4)),
    (dict[str, int], st.dictionaries(texts, st.integers(), max_size=4)),
    (dict[int, list[str]], st.dictionaries(st.integers(), st.lists(texts, max_size=2), max_size=3)),
    (dict[UUID, datetime], st.dictionaries(st.uuids(), moments, max_size=3)),
    (int | str, st.integers() | texts),
    (int | float, st.integers() | finite),
    (int | None, st.integers() | st.none()),
    (list[dict[str, int | None]], st.lists(st.dictionaries(texts, st.none() | st.integers(), max_size=2), max_size=2)),
    (Item, items),
    (Item | None, st.none() | items),
    (list[Item], st.lists(items, max_size=3)),
    (Camel, st.builds(camel, texts, texts)),
    (Point, points),
    (dict[str, Point], st.dictionaries(texts, points, max_size=3)),
    (Item | Point, items | points),
    (Pair, st.builds(Pair, st.integers(), texts)),
    (Options, st.fixed_dictionaries({"verbose": st.booleans(), "names": st.lists(texts, max_size=3)})),
    (Any, json_values),
]  # fmt: skip


def typed() -> st.SearchStrategy[tuple[Any, Any]]:
    """An annotation, and a value that fits it."""
    return st.sampled_from(FITTING).flatmap(lambda pair: st.tuples(st.just(pair[0]), pair[1]))


class Tagged(str):
    """Text that carries more than its characters."""

    __slots__ = ("tag",)
    tag: object


class Unequal:
    """What is equal to nothing, and says so loudly."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be compared")

    __hash__ = None  # type: ignore[assignment]


def cycle() -> list[Any]:
    round_: list[Any] = [1]
    round_.append({"a": round_})
    return round_


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(1000):
        value = [value]
    return value


STRANGE: list[Any] = [
    float("nan"),
    float("inf"),
    2**63,
    -(2**200),
    "\ud800",
    "a\0b",
    b"\xff\xfe",
    Decimal("NaN"),
    Decimal("-Infinity"),
    SecretStr("hush"),
    Discounted(name="a"),
    Point3D(1, 2.0, 3),
    Item.model_construct(name=5),
    Item.model_construct(name="a", price=object()),
    Loose(1, "a"),
    Tagged("a"),
    Counter("aab"),
    OrderedDict(a=1),
    lambda: None,
    print,
    int,
    object(),
    Unequal(),
    socket,
    ValueError("no"),
    1j,
    ...,
    range(3),
    memoryview(b"x"),
    bytearray(b"x"),
    Request({"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}),
    {1: "a", "1": "b"},
    {None: 1, True: 2},
    {(1, 2): 3},
]
fitting_alone = st.one_of(*(strategy for _, strategy in FITTING))
strange = (
    st.sampled_from(STRANGE)
    | st.builds(cycle)
    | st.builds(deep)
    | st.builds(lambda: (n for n in range(3)))
    | st.builds(lambda: iter([1]))
    | st.floats()
    | st.decimals()
    | st.text(max_size=5)
)
anything = fitting_alone | strange | st.recursive(
    strange | fitting_alone,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(texts, inner, max_size=3)
        | st.tuples(inner, inner)
        | inner.map(lambda value: Item.model_construct(name="a", price=value))
        | inner.map(lambda value: Point(1, value))
    ),
    max_leaves=4,
)  # fmt: skip
"""Values of which some can be stored somewhere, and many nowhere."""


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(one) is not type(other):
        return False
    inside, others = _inside(one), _inside(other)
    if inside is not None and others is not None:
        return len(inside) == len(others) and all(
            same(key, its) and same(part, theirs) for (key, part), (its, theirs) in zip(inside, others, strict=True)
        )
    if isinstance(one, datetime):
        return one == other and one.utcoffset() == other.utcoffset()
    if isinstance(one, float | Decimal):
        return repr(one) == repr(other)
    return bool(one == other)


def _inside(value: Any) -> list[tuple[Any, Any]] | None:
    """What a value consists of, by what it is found under; None for what has no parts."""
    if isinstance(value, BaseModel) or is_dataclass(value):
        return list(vars(value).items())
    if isinstance(value, dict):
        return sorted(cast("dict[Any, Any]", value).items(), key=lambda item: repr(item[0]))
    if isinstance(value, list | tuple):
        return list(enumerate(cast("list[Any]", value)))
    return None
